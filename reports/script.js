// Sorting, filtering, columns of ours, copies and hover. The page says everything without this file; nothing here is needed to read it.
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

  // Above each table: a box that keeps the rows with every word typed, switches for our columns, and copies.
  const tools = (table) => {
    const scroll = table.closest(".scroll");
    if (!scroll.previousElementSibling?.classList.contains("tools")) scroll.before(make("div", { className: "tools" }));
    return scroll.previousElementSibling;
  };
  const filterable = (table) => {
    const rows = [...table.tBodies[0].rows];
    if (rows.length < 6) return;
    const label = make("label", { className: "filter" });
    const input = make("input", { type: "search", placeholder: "keep rows with these words" });
    const count = make("span", {});
    count.setAttribute("aria-live", "polite");
    label.append("Filter", input, count);
    tools(table).append(label);
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

  // What is ours beside a paper's own columns is hidden until a reader asks for it.
  const switchable = (table) => {
    const names = new Set([...table.querySelectorAll("thead [data-switch]")].map((cell) => cell.dataset.switch));
    for (const name of names) {
      const label = make("label", {});
      const box = make("input", { type: "checkbox" });
      const show = () => {
        for (const cell of table.querySelectorAll(`[data-switch="${name}"]`)) cell.classList.toggle("off", !box.checked);
      };
      label.append(box, name);
      box.addEventListener("change", show);
      tools(table).append(label);
      show();
    }
  };

  // The table as it is seen: heads with their groups, then the rows.
  const grid = (table) => {
    const seen = (cells) => [...cells].filter((cell) => !cell.classList.contains("off"));
    const text = (cell) => {
      const copy = cell.cloneNode(true);
      copy.querySelectorAll(".mark, svg").forEach((part) => part.remove());
      copy.querySelectorAll("small").forEach((part) => part.before(" "));
      return copy.textContent.replace(/\s+/g, " ").trim();
    };
    const groups = [];
    for (const cell of seen(table.tHead.querySelector(".groups")?.cells ?? [])) {
      groups.push(...Array(cell.colSpan).fill(text(cell)));
    }
    const heads = seen(table.tHead.querySelector(".columns").cells);
    const lines = [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => seen(row.cells).map(text));
    return {
      heads: heads.map((cell, i) => [groups[i], text(cell)].filter(Boolean).join(": ")),
      right: heads.map((cell) => cell.classList.contains("n")),
      lines,
    };
  };
  const TEX = { "\\": "\\textbackslash{}", "−": "$-$", "–": "--", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "\u202f": "\\," };
  const tex = (text) => text.replace(/[\\{}$&#_%~^−–\u202f]/g, (c) => TEX[c] ?? `\\${c}`);
  const csv = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const FORMATS = {
    LaTeX: ({ heads, right, lines }) => [
      "% needs \\usepackage{booktabs}",
      `\\begin{tabular}{${right.map((r) => (r ? "r" : "l")).join("")}}`,
      "  \\toprule", `  ${heads.map(tex).join(" & ")} \\\\`, "  \\midrule",
      ...lines.map((line) => `  ${line.map(tex).join(" & ")} \\\\`), "  \\bottomrule", "\\end{tabular}",
    ].join("\n"),
    CSV: ({ heads, lines }) => [heads, ...lines].map((line) => line.map(csv).join(",")).join("\n"),
    Markdown: ({ heads, right, lines }) => [heads, right.map((r) => (r ? "---:" : "---")), ...lines]
      .map((line, i) => `| ${line.map((text) => (i === 1 ? text : text.replace(/[\\|*_<>`]/g, "\\$&"))).join(" | ")} |`)
      .join("\n"),
  };
  const copyable = (table) => {
    const place = make("span", { className: "copies" });
    const done = make("span", {});
    done.setAttribute("aria-live", "polite");
    place.append("Copy as");
    for (const [name, write] of Object.entries(FORMATS)) {
      const button = make("button", { type: "button", textContent: name });
      button.setAttribute("aria-label", `Copy ${table.caption.textContent} as ${name}`);
      button.addEventListener("click", async () => {
        const text = `${write(grid(table))}\n`;
        try {
          await navigator.clipboard.writeText(text);
          done.textContent = "copied";
        } catch {  // a page from a file may not write to the clipboard everywhere: an element that is selected may
          const area = make("textarea", { value: text });
          document.body.append(area);
          area.select();
          done.textContent = document.execCommand("copy") ? "copied" : "not copied";
          area.remove();
        }
      });
      place.append(button);
    }
    place.append(done);
    tools(table).append(place);
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
  const show = (mark, where) => {
    const text = mark.getAttribute("aria-label");
    if (!text) return;
    tip.textContent = text;
    tip.hidden = false;
    place(where);
  };
  const point = (event) => {
    const mark = event.target.closest?.("[data-row]");
    const section = mark?.closest("main > section");
    if (!section) return;
    const on = event.type === "pointerover" || event.type === "focusin";
    light(section, mark.dataset.row, on);
    tip.hidden = true;
    if (!on) return;
    const box = mark.getBoundingClientRect();
    show(mark, event.type === "focusin" ? { clientX: box.right, clientY: box.top } : event);
  };
  for (const type of ["pointerover", "pointerout", "focusin", "focusout"]) document.addEventListener(type, point);
  document.addEventListener("pointermove", (event) => {
    if (!tip.hidden && event.target.closest?.(".point")) place(event);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") tip.hidden = true;
  });
  // A title becomes a name that is read out: the browser's own tooltip would stand over ours.
  for (const title of document.querySelectorAll(".point > title")) {
    title.parentNode.setAttribute("role", "img");
    title.parentNode.setAttribute("aria-label", title.textContent);
    title.remove();
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    sortable(table);
    filterable(table);
    switchable(table);
    copyable(table);
  }
  if (innerWidth < 1200) document.querySelector("#contents details")?.removeAttribute("open");
})();
