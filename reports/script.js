// Sorting, filtering and hover. The page says everything without this file; nothing here is needed to read it.
"use strict";
(() => {
  const make = (name, properties) => Object.assign(document.createElement(name), properties);

  // A heading sorts its table: first click ascending, second descending, third back to the suite's order.
  const sortValue = (row, index) => {
    const cell = row.cells[index];
    const text = cell.dataset.value ?? (cell.classList.contains("absent") ? "" : cell.textContent.trim());
    const number = Number(text);
    return text === "" ? null : Number.isNaN(number) ? text : number;
  };
  const compare = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a === "number" && typeof b === "number") return sign * (a - b);
    return sign * String(a).localeCompare(String(b), "en", { numeric: true });
  };
  const sortable = (table) => {
    const body = table.tBodies[0];
    const original = [...body.rows];
    const headings = [...table.tHead.querySelectorAll(".columns th")];
    headings.forEach((heading, index) => {
      const button = make("button", { type: "button", title: "Sort by this column" });
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const next = { none: "ascending", ascending: "descending", descending: "none" }[heading.getAttribute("aria-sort") ?? "none"];
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        const rows = [...original];
        if (next !== "none") {
          heading.setAttribute("aria-sort", next);
          const sign = next === "ascending" ? 1 : -1;
          rows.sort((a, b) => compare(sortValue(a, index), sortValue(b, index), sign));
        }
        body.append(...rows);
      });
    });
  };

  // A box above a long table keeps the rows that hold every word typed.
  const filterable = (table) => {
    const rows = [...table.tBodies[0].rows];
    if (rows.length < 6) return;
    const label = make("label", { className: "filter" });
    const input = make("input", { type: "search", placeholder: "keep rows with these words" });
    const count = make("span", {});
    count.setAttribute("aria-live", "polite");
    label.append("Filter", input, count);
    table.closest(".scroll").before(label);
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      }
      const shown = rows.filter((row) => !row.hidden).length;
      count.textContent = words.length ? `${shown} of ${rows.length} rows` : "";
    });
  };

  // Pointing at a mark of a drawing shows its figures and lights its row, and the other way round.
  const tip = make("div", { className: "tip", hidden: true });
  tip.setAttribute("role", "tooltip");
  document.body.append(tip);
  const place = (event) => {
    const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
    const above = event.clientY - tip.offsetHeight - 12;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${above > 8 ? above : event.clientY + 18}px`;
  };
  const light = (section, row, on) => {
    for (const mark of section.querySelectorAll("[data-row]")) {
      if (mark.dataset.row === row) mark.classList.toggle("lit", on);
    }
  };
  for (const section of document.querySelectorAll("main > section")) {
    for (const mark of section.querySelectorAll("[data-row]")) {
      const title = mark.querySelector(":scope > title");
      const text = title?.textContent;
      title?.remove();
      mark.addEventListener("pointerenter", (event) => {
        light(section, mark.dataset.row, true);
        if (!text) return;
        tip.textContent = text;
        tip.hidden = false;
        place(event);
      });
      if (text) mark.addEventListener("pointermove", place);
      mark.addEventListener("pointerleave", () => {
        light(section, mark.dataset.row, false);
        tip.hidden = true;
      });
    }
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    sortable(table);
    filterable(table);
  }
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => (part.open = true)));
})();
