// A chart with other axes, one method alone, and its points by keyboard. Without this file its static drawing stands.
"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const SHAPES = {
    o: "M-4.500 0a4.500 4.500 0 1 0 9 0a4.500 4.500 0 1 0-9 0z", s: "M-4-4H4V4H-4z", D: "M0-5.500L5.500 0 0 5.500-5.500 0z",
    "^": "M0-5L5 4.500H-5z", v: "M0 5L5-4.500H-5z", X: "M-5-3L-3-5 0-2 3-5 5-3 2 0 5 3 3 5 0 2-3 5-5 3-2 0z",
    "*": "M0-8L2-2.600H7.600L3.200 .9 4.800 6.500 0 3.200-4.800 6.500-3.200 .9-7.600-2.600H-2z",
  };
  const html = (name, properties) => Object.assign(document.createElement(name), properties);
  const draw = (parent, name, attributes, text) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  };
  const fixed = (value, decimals) => value.toFixed(decimals).replace("-", "−");

  // Round numbers along an axis.
  const ticks = (low, high, log) => {
    if (log && high / low > 4) {
      const found = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
        for (const lead of [1, 1.5, 2, 3, 5, 7]) found.push(lead * 10 ** power);
      }
      return found.filter((tick) => tick >= low && tick <= high);
    }
    const raw = (high - low) / 6;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].map((lead) => lead * power).find((size) => size >= raw);
    const found = [];
    for (let tick = Math.ceil(low / step) * step; tick <= high + step / 1e6; tick += step) found.push(Number(tick.toPrecision(6)));
    return found;
  };

  const range = (values, log, share) => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    if (log) return [low / (high / low) ** share, high * (high / low) ** share];
    const room = (high - low || Math.abs(high) || 1) * share;
    return [low - room, high + room];
  };

  // The points that none of their length of training beats on both axes.
  const unbeaten = (marks, x, y) => {
    const best = [];
    for (const mark of [...marks].sort((a, b) => a.x[x] - b.x[x] || b.y[y] - a.y[y])) {
      if (!best.length || mark.y[y] > best.at(-1).y[y]) best.push(mark);
    }
    return best;
  };

  const chart = (figure, name) => {
    const data = JSON.parse(figure.dataset.chart);
    const canvas = figure.querySelector(".canvas");
    const still = canvas.querySelector("svg");
    const box = still.viewBox.baseVal;
    const first = { ...data.first, log: false, only: "" };
    const state = { ...first };

    const words = (mark) => {
      const [x, y] = [data.x.find((axis) => axis.key === state.x), data.y.find((axis) => axis.key === state.y)];
      const span = (key, decimals) => (mark.spans[key] ? ` [${mark.spans[key].map((v) => fixed(v, decimals)).join(", ")}]` : "");
      const costs = data.x.filter((axis) => axis.key in mark.x && (axis === x || axis.key.startsWith("gflops")));
      const cost = costs.map((axis) => `${fixed(mark.x[axis.key], axis.decimals)} ${axis.words}${span(axis.key, axis.decimals)}`);
      const after = mark.epochs ? `, ${mark.epochs} epochs` : "";
      const seeds = mark.seeds && y.key === "AP" ? ` ± ${fixed(mark.seeds[1], 1)} (SD of ${mark.seeds[0]} seeds)` : "";
      return `${mark.name}: ${fixed(mark.y[y.key], y.decimals)} ${y.words}${seeds}${span(y.key, y.decimals)} at ${cost.join(", ")}${after} (${mark.source})`;
    };

    const redraw = () => {
      const shown = data.marks.filter((mark) => state.x in mark.x && state.y in mark.y);
      const axes = [data.x.find((axis) => axis.key === state.x), data.y.find((axis) => axis.key === state.y)];
      const frame = { left: 62, right: box.width - 16, top: 10, bottom: box.height - 48 };
      const [x0, x1] = range(shown.map((mark) => mark.x[state.x]), state.log, 0.08);
      const [y0, y1] = range(shown.map((mark) => mark.y[state.y]), false, 0.1);
      const along = (v) => (state.log ? Math.log(v / x0) / Math.log(x1 / x0) : (v - x0) / (x1 - x0));
      const px = (v) => frame.left + along(v) * (frame.right - frame.left);
      const py = (v) => frame.bottom - ((v - y0) / (y1 - y0)) * (frame.bottom - frame.top);
      const svg = document.createElementNS(SVG, "svg");
      svg.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
      svg.setAttribute("class", "plot");
      svg.setAttribute("role", "img");
      svg.setAttribute("aria-label", `${axes[1].label} against ${axes[0].label}: ${shown.length} points`);
      canvas.replaceChildren(svg);
      const style = (ink, size) => `fill: var(${ink}); font-size: ${size}px`;
      for (const tick of ticks(x0, x1, state.log)) {
        draw(svg, "path", { d: `M${px(tick)} ${frame.top}V${frame.bottom}`, style: "stroke: var(--rule); stroke-width: .6" });
        draw(svg, "text", { x: px(tick), y: frame.bottom + 16, "text-anchor": "middle", style: style("--muted", 11) }, String(tick));
      }
      for (const tick of ticks(y0, y1, false)) {
        draw(svg, "path", { d: `M${frame.left} ${py(tick)}H${frame.right}`, style: "stroke: var(--rule); stroke-width: .6" });
        draw(svg, "text", { x: frame.left - 6, y: py(tick) + 4, "text-anchor": "end", style: style("--muted", 11) }, String(tick));
      }
      draw(svg, "text", { x: (frame.left + frame.right) / 2, y: box.height - 8, "text-anchor": "middle", style: style("--muted", 12) }, axes[0].label + (state.log ? ", logarithmic" : ""));
      draw(svg, "text", { transform: `translate(14 ${(frame.top + frame.bottom) / 2}) rotate(-90)`, "text-anchor": "middle", style: style("--muted", 12) }, axes[1].label);

      const taken = shown.map((mark) => [px(mark.x[state.x]) - 6, py(mark.y[state.y]) - 6, px(mark.x[state.x]) + 6, py(mark.y[state.y]) + 6]);
      const free = (b) => b[0] > frame.left + 2 && b[2] < frame.right && b[1] > 0 && b[3] < frame.bottom
        && !taken.some((t) => b[0] < t[2] && t[0] < b[2] && b[1] < t[3] && t[1] < b[3]);
      const wanted = [];
      if (data.steps) {
        const right = px(Math.max(...shown.map((mark) => mark.x[state.x]))) + 12;
        for (const epochs of [...new Set(shown.map((mark) => mark.epochs))].filter(Boolean)) {
          const mine = shown.filter((mark) => mark.epochs === epochs);
          const best = unbeaten(mine, state.x, state.y);
          if (best.length < 2 || mine.length < 3) continue;
          const path = best.map((mark, i) => (i ? `H${px(mark.x[state.x])}V${py(mark.y[state.y])}` : `M${px(mark.x[state.x])} ${py(mark.y[state.y])}`));
          draw(svg, "path", { d: `${path.join("")}H${right}`, class: "steps", style: "fill: none; stroke: var(--muted); stroke-dasharray: 4 3; opacity: .75" });
          wanted.push([right, py(best.at(-1).y[state.y]), `${epochs} epochs`, "", "--muted"]);
        }
      }
      for (const curve of new Set(shown.map((mark) => mark.curve).filter((number) => number >= 0))) {
        const mine = shown.filter((mark) => mark.curve === curve).sort((a, b) => a.at - b.at);
        draw(svg, "polyline", {
          points: mine.map((mark) => `${px(mark.x[state.x])},${py(mark.y[state.y])}`).join(" "), class: "curve",
          "data-method": mine[0].method, style: `fill: none; stroke: var(--series-${mine[0].colour}); stroke-width: 1.7`,
        });
      }
      for (const mark of shown) {
        const colour = `var(--series-${mark.colour})`;
        const [x, y] = [px(mark.x[state.x]), py(mark.y[state.y])];
        const point = draw(svg, "g", { class: "point", role: "img", "data-row": mark.row, "data-method": mark.method, "aria-label": words(mark) });
        for (const [key, line] of [[state.y, (v) => `${x} ${py(v)}`], [state.x, (v) => `${px(v)} ${y}`]]) {
          if (mark.spans[key]) draw(point, "path", { d: `M${mark.spans[key].map(line).join("L")}`, style: `stroke: ${colour}; stroke-width: 1.2; opacity: .6` });
        }
        draw(point, "path", { transform: `translate(${x} ${y})`, d: SHAPES[mark.marker], style: `fill: ${mark.measured ? colour : "var(--paper)"}; stroke: ${colour}; stroke-width: 1.5` });
        if (mark.label) wanted.unshift([x, y, mark.label, mark.method, "--ink"]);
      }
      for (const [x, y, text, method, ink] of wanted) {
        const label = draw(svg, "text", { class: "label", "data-method": method, style: style(ink, 11.5) }, text);
        const wide = label.getComputedTextLength();
        const at = [[9, -8], [9, 15], [-9 - wide, -8], [-9 - wide, 15], [-wide / 2, -12], [-wide / 2, 22], [12, 4], [-12 - wide, 4], [-wide / 2, -24], [-wide / 2, 34]]
          .map(([dx, dy]) => [x + dx, y + dy]).find(([left, base]) => free([left - 2, base - 11, left + wide + 2, base + 4]));
        if (!at) { label.remove(); continue; }
        label.setAttribute("x", at[0]);
        label.setAttribute("y", at[1]);
        taken.push([at[0] - 2, at[1] - 11, at[0] + wide + 2, at[1] + 4]);
      }
    };

    // One point of the drawing is in the order of the tab key; the arrows go on from there.
    const rove = () => {
      const points = [...canvas.querySelectorAll(".point")];
      points.forEach((point, i) => point.setAttribute("tabindex", i ? -1 : 0));
    };
    canvas.addEventListener("keydown", (event) => {
      const on = document.activeElement.closest?.(".point");
      const way = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!on || !way || !canvas.contains(on)) return;
      event.preventDefault();
      const middle = (point) => {
        const at = point.getBoundingClientRect();
        return [at.left + at.width / 2, at.top + at.height / 2];
      };
      const [x, y] = middle(on);
      const seen = [...canvas.querySelectorAll(".point:not(.gone)")].filter((point) => point !== on).map((point) => {
        const [dx, dy] = [middle(point)[0] - x, middle(point)[1] - y];
        const ahead = dx * way[0] + dy * way[1];
        return { point, ahead, cost: ahead + 3 * Math.abs(dx * way[1] + dy * way[0]) };
      });
      const next = seen.filter((each) => each.ahead > 0.5).sort((a, b) => a.cost - b.cost)[0];
      if (!next) return;
      on.setAttribute("tabindex", -1);
      next.point.setAttribute("tabindex", 0);
      next.point.focus();
    });

    const methods = [...figure.querySelectorAll(".legend [data-method]")];
    const mark = (name, method) => {
      for (const part of canvas.querySelectorAll("[data-method], .steps")) {
        part.classList.toggle(name, Boolean(method) && part.dataset.method !== method);
      }
    };
    const apply = () => {
      if (state.x === first.x && state.y === first.y && !state.log) {
        if (canvas.firstElementChild !== still) canvas.replaceChildren(still);
      } else redraw();
      mark("gone", state.only);
      for (const item of methods) {
        item.querySelector("button").setAttribute("aria-pressed", String(item.dataset.method === state.only));
        item.hidden = !canvas.querySelector(`.point[data-method="${item.dataset.method}"]`);
      }
      for (const [key, field] of Object.entries(fields)) field[key === "log" ? "checked" : "value"] = state[key];
      rove();
    };
    const change = (values) => {
      Object.assign(state, values);
      apply();
      const changed = Object.keys(first).filter((key) => state[key] !== first[key]);
      const said = new URLSearchParams([["chart", name], ...changed.map((key) => [key, state[key]])]);
      history.replaceState(null, "", changed.length ? `#${said}` : `#${figure.closest("section").id}`);
    };

    const fields = {};
    const controls = html("div", { className: "controls" });
    for (const [key, text, axes] of [["x", "Across", data.x], ["y", "Upwards", data.y]]) {
      if (axes.length < 2) continue;
      const label = html("label", { textContent: text });
      fields[key] = html("select", {});
      for (const axis of axes) fields[key].append(html("option", { value: axis.key, textContent: axis.label }));
      fields[key].addEventListener("change", () => {
        const next = { ...state, [key]: fields[key].value };
        const both = (x, y) => data.marks.filter((each) => x in each.x && y in each.y).length > 1;
        // An axis that shares no points with the other takes the other to the first that it does share some with.
        const other = key === "x" ? "y" : "x";
        if (!both(next.x, next.y)) next[other] = data[other].map((axis) => axis.key).find((k) => (key === "x" ? both(next.x, k) : both(k, next.y)));
        change(next);
      });
      label.append(fields[key]);
      controls.append(label);
    }
    const log = html("label", {});
    fields.log = html("input", { type: "checkbox" });
    fields.log.addEventListener("change", () => change({ log: fields.log.checked }));
    log.append(fields.log, "logarithmic");
    controls.append(log);
    canvas.before(controls);

    for (const item of methods) {
      const button = html("button", { type: "button", title: "This method alone; again for all" });
      button.append(...item.childNodes);
      item.append(button);
      button.addEventListener("click", () => change({ only: state.only === item.dataset.method ? "" : item.dataset.method }));
      for (const [type, method] of [["pointerenter", item.dataset.method], ["pointerleave", ""]]) {
        item.addEventListener(type, () => mark("dim", method));
      }
    }
    canvas.addEventListener("pointerover", (event) => mark("dim", event.target.closest(".point, .curve, .label")?.dataset.method ?? ""));
    canvas.addEventListener("pointerleave", () => mark("dim", ""));

    const read = () => {
      const said = new URLSearchParams(location.hash.slice(1));
      if (said.get("chart") !== name) return;
      const valid = { x: data.x.map((a) => a.key), y: data.y.map((a) => a.key), only: methods.map((m) => m.dataset.method) };
      for (const key of ["x", "y", "only"]) if (valid[key].includes(said.get(key))) state[key] = said.get(key);
      state.log = said.get("log") === "true";
      figure.scrollIntoView();
    };
    read();
    apply();
  };

  const counts = {};
  for (const figure of document.querySelectorAll("figure[data-chart]")) {
    const section = figure.closest("section").id;
    counts[section] = (counts[section] ?? 0) + 1;
    chart(figure, counts[section] > 1 ? `${section}-${counts[section]}` : section);
  }
})();
