
"use strict";
// What a page of perf/trainpace/report/html.py does: sorts its tables, draws its charts. Text only ever enters as text.

const WIDTH = 960, HEIGHT = 260, LEFT = 62, RIGHT = 14, TOP = 30, BOTTOM = 28;

// The namespace is taken from an element that the page has: written out it would be an address.
function element(parent, name, attributes, text) {
  const made = document.createElementNS(parent.namespaceURI, name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  if (text !== undefined) made.textContent = text;
  parent.appendChild(made);
  return made;
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const percent = (share) => (share > 0 ? "+" : "\u2212") + (100 * Math.abs(share)).toFixed(1) + " %";
const figures = (value) => value.toPrecision(Math.max(4, Math.min(7, Math.floor(Math.log10(value)) + 2))).replace(/e.*/, "");
const time = (seconds) => new Date(1000 * seconds).toISOString().slice(0, 16).replace("T", " ");

// Steps of 1, 2 or 5 times a power of ten, about `number` of them.
function ticks(low, high, number) {
  const raw = (high - low) / number, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= raw);
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high; k++) found.push(k * step);
  return found;
}

// Tables

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const order = (a, b) => key(a).localeCompare(key(b), "en", {numeric: true});
    const number = (a, b) => key(a) - key(b);
    const compare = [...body.rows].every((row) => "value" in row.cells[column].dataset) ? number : order;
    body.append(...[...body.rows].sort((a, b) => (down ? -1 : 1) * compare(a, b)));
  }));
}

// Charts: each function draws into the figure's svg.

const draw = {
  // Runs of one case, oldest first: a dot a run, a line a level, a mark where the level moved.
  // data: t seconds since 1970, v TGS, m memory in MiB, r index into revisions; levels [start, stop, TGS];
  // moves [at, first, last, ratio]; best: TGS of the reference.
  trend(figure, data) {
    const svg = figure.querySelector("svg"), count = data.v.length;
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    const tip = document.createElement("div");
    tip.className = "tip";
    tip.hidden = true;
    tip.setAttribute("role", "status");
    figure.appendChild(tip);
    let from = 0, to = count, near = null, ring = null, chosen = null, pressed = null;
    let x, y, index;

    function paint() {
      svg.replaceChildren();
      let low = data.best, high = data.best;
      for (let i = from; i < to; i++) {
        low = Math.min(low, data.v[i]);
        high = Math.max(high, data.v[i]);
      }
      const pad = 0.06 * (high - low) || 0.01 * high;
      low -= pad;
      high += pad;
      const across = WIDTH - LEFT - RIGHT, down = HEIGHT - TOP - BOTTOM;
      x = (i) => LEFT + ((i - from + 0.5) / (to - from)) * across;
      y = (value) => TOP + ((high - value) / (high - low)) * down;
      index = (at) => clamp(Math.floor(((at - LEFT) / across) * (to - from)) + from, from, to - 1);
      for (const value of ticks(low, high, 5)) {
        element(svg, "line", {class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value)});
        element(svg, "text", {x: LEFT - 6, y: y(value) + 4, "text-anchor": "end"}, figures(value));
      }
      element(svg, "text", {x: 4, y: 12}, "TGS");
      const dates = Math.min(6, to - from);
      for (let k = 0; k < dates; k++) {
        const i = dates === 1 ? from : from + Math.round((k * (to - from - 1)) / (dates - 1));
        const anchor = k === 0 ? "start" : k === dates - 1 ? "end" : "middle";
        element(svg, "text", {x: x(i), y: HEIGHT - 8, "text-anchor": dates === 1 ? "middle" : anchor}, time(data.t[i]).slice(0, 10));
      }
      for (const [, first, last] of data.moves.filter((move) => move[2] >= from && move[1] < to)) {
        const start = x(Math.max(first, from) - 1), stop = x(Math.min(last, to - 1));
        element(svg, "rect", {class: "likely", x: start, width: stop - start, y: TOP, height: down});
      }
      dots();
      element(svg, "line", {class: "best", x1: LEFT, x2: WIDTH - RIGHT, y1: y(data.best), y2: y(data.best)});
      let path = "";
      for (const [start, stop, level] of data.levels) {
        if (stop > from && start < to) path += `M${x(Math.max(start, from) - 0.5)} ${y(level)}H${x(Math.min(stop, to) - 0.5)}`;
      }
      element(svg, "path", {class: "level", d: path});
      let free = -Infinity;
      for (const [at, , , ratio] of data.moves.filter((move) => move[0] > from && move[0] < to)) {
        const here = x(at - 0.5), way = ratio < 1 ? 1 : -1;
        element(svg, "line", {class: "move", x1: here, x2: here, y1: TOP, y2: HEIGHT - BOTTOM});
        element(svg, "path", {class: ratio < 1 ? "slower" : "faster", d: `M${here - 6} ${TOP - 4 - 4 * way}h12l-6 ${8 * way}z`});
        if (here > free) {
          const before = here > WIDTH - 70;
          element(svg, "text", {x: here + (before ? -9 : 9), y: TOP - 2, "text-anchor": before ? "end" : "start"}, percent(ratio - 1));
          free = here + 70;
        }
      }
      ring = element(svg, "circle", {class: "near", r: 5, visibility: "hidden"});
      chosen = element(svg, "rect", {class: "chosen", y: TOP, height: down, width: 0});
    }

    // One path: a dot a run, or, where several share a column of pixels, the line from the lowest to the highest.
    function dots() {
      const columns = 2 * WIDTH, thin = to - from > columns;
      let path = "";
      if (thin) {
        for (let k = 0; k < columns; k++) {
          const start = from + Math.floor((k * (to - from)) / columns), stop = from + Math.floor(((k + 1) * (to - from)) / columns);
          let low = Infinity, high = -Infinity;
          for (let i = start; i < stop; i++) {
            low = Math.min(low, data.v[i]);
            high = Math.max(high, data.v[i]);
          }
          path += `M${x(start).toFixed(1)} ${y(high).toFixed(1)}V${(y(low) + 0.1).toFixed(1)}`;
        }
      } else {
        for (let i = from; i < to; i++) path += `M${x(i).toFixed(1)} ${y(data.v[i]).toFixed(1)}h0`;
      }
      element(svg, "path", {class: "runs", "stroke-width": thin ? 1 : clamp(1200 / (to - from), 2.5, 7), d: path});
    }

    function show(i) {
      near = i;
      ring.setAttribute("cx", x(i));
      ring.setAttribute("cy", y(data.v[i]));
      ring.setAttribute("visibility", "visible");
      const level = data.levels.find(([, stop]) => i < stop)[2];
      tip.textContent = [
        `run ${i + 1} of ${count}, ${time(data.t[i])} UTC`,
        data.revisions[data.r[i]] ?? "no revision recorded",
        `${figures(data.v[i])} TGS, ${percent(data.v[i] / data.best - 1)} to the best level`,
        `level ${figures(level)}, memory ${data.m[i]} MiB`,
      ].join("\n");
      tip.hidden = false;
      const scale = svg.clientWidth / WIDTH, wide = x(i) > WIDTH / 2;
      tip.style.top = `${svg.getBoundingClientRect().top - figure.getBoundingClientRect().top + 34 * scale}px`;
      tip.style.left = wide ? "auto" : `${x(i) * scale + 12}px`;
      tip.style.right = wide ? `${(WIDTH - x(i)) * scale + 12}px` : "auto";
    }

    function hide() {
      tip.hidden = true;
      ring.setAttribute("visibility", "hidden");
    }

    function zoom(start, stop) {
      [from, to] = [start, stop];
      hide();
      paint();
    }

    const place = (event) => ((event.clientX - svg.getBoundingClientRect().left) * WIDTH) / svg.clientWidth;
    svg.addEventListener("pointermove", (event) => {
      const at = place(event);
      if (pressed !== null) {
        chosen.setAttribute("x", Math.min(at, pressed));
        chosen.setAttribute("width", Math.abs(at - pressed));
      }
      show(index(at));
    });
    svg.addEventListener("pointerleave", () => pressed === null && hide());
    svg.addEventListener("pointerdown", (event) => {
      pressed = place(event);
      svg.setPointerCapture(event.pointerId);
    });
    svg.addEventListener("pointerup", (event) => {
      const [start, stop] = [index(pressed ?? 0), index(place(event))].sort((a, b) => a - b);
      const far = pressed !== null && Math.abs(place(event) - pressed) > 8;
      pressed = null;
      chosen.setAttribute("width", 0);
      if (far && stop - start >= 4) zoom(start, stop + 1);
    });
    svg.addEventListener("dblclick", () => zoom(0, count));
    svg.addEventListener("keydown", (event) => {
      const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
      if (event.key === "Escape") zoom(0, count);
      if (!step) return;
      event.preventDefault();
      show(clamp((near ?? to) + step, from, to - 1));
    });
    svg.addEventListener("blur", hide);
    paint();
  },
};

document.querySelectorAll("table").forEach(sortable);
let drawn = 0;
for (const figure of document.querySelectorAll("figure[data-draw]")) {
  draw[figure.dataset.draw](figure, JSON.parse(figure.querySelector("script").textContent));
  drawn++;
}
document.documentElement.dataset.drawn = drawn;
