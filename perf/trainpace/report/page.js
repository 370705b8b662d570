"use strict";
// What a page of perf/trainpace/report/html.py does: sorts its tables, draws its charts. Text only ever enters as text.

// Pixels. A chart is as wide as its figure, so that its text is as large on a telephone as on a wide screen.
const HEIGHT = 280, LEFT = 62, RIGHT = 14, TOP = 30, BOTTOM = 28, LEAST = 280;
const LETTER = 7.2; // about the width of a character of the charts' text
const NARROW = 700;

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
const figures = (value) => value.toPrecision(clamp(Math.floor(Math.log10(value || 1)) + 2, 4, 7)).replace(/e.*/, "");
const round = (value) => String(Number(value.toPrecision(6)));
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

// What lies outside a narrow screen is said, until it was scrolled to.
function scrolled(wide) {
  const hint = document.createElement("p");
  hint.className = "hint";
  hint.textContent = "more columns to the right: scroll sideways \u2192";
  wide.before(hint);
  const look = () => (hint.hidden = wide.scrollLeft + wide.clientWidth >= wide.scrollWidth - 2);
  wide.addEventListener("scroll", look);
  new ResizeObserver(look).observe(wide);
  look();
}

// Charts: each function draws into the figure's svg.

// Draws at once, and again whenever the figure has another width. `paint` is given the width and answers the height.
function fitted(figure, paint) {
  const svg = figure.querySelector("svg");
  let width = 0;
  const draw = () => {
    svg.replaceChildren();
    const height = paint(width);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("height", height);
  };
  const fit = () => {
    const now = Math.max(LEAST, Math.floor(figure.clientWidth));
    if (now === width) return;
    width = now;
    draw();
  };
  fit();
  new ResizeObserver(fit).observe(figure);
  return draw;
}

// The box beside what the pointer or the keyboard is at.
function tooltip(figure) {
  const tip = document.createElement("div"), svg = figure.querySelector("svg");
  tip.className = "tip";
  tip.hidden = true;
  tip.setAttribute("role", "status");
  figure.appendChild(tip);
  return {
    show(text, x, y) {
      tip.textContent = text;
      tip.hidden = false;
      const width = figure.clientWidth, left = x > width / 2;
      tip.style.top = `${svg.getBoundingClientRect().top - figure.getBoundingClientRect().top + y}px`;
      tip.style.left = left ? "auto" : `${x + 12}px`;
      tip.style.right = left ? `${width - x + 12}px` : "auto";
    },
    hide() {
      tip.hidden = true;
    },
  };
}

// What of the runs the trends show: key of the data, title, and the text of a value.
const METRICS = [
  {key: "v", title: "TGS", text: figures},
  {key: "m", title: "peak memory, MiB", text: round},
  {key: "s", title: "start-up, s", text: round},
];
let metric = METRICS[0];
const trends = [];

// One choice for all trends of a page, above the first.
function choice(first) {
  const label = document.createElement("label"), select = document.createElement("select");
  label.textContent = "Charts show ";
  METRICS.forEach((each, number) => select.add(new Option(each.title, number)));
  select.addEventListener("change", () => {
    metric = METRICS[select.value];
    trends.forEach((again) => again());
  });
  label.append(select);
  first.before(label);
}

const draw = {
  // Runs of one case, oldest first: a dot a run, a line a level, a mark where the level moved.
  // data: t seconds since 1970, v TGS, m peak memory in MiB, s start-up in seconds, r index into revisions; levels
  // [start, stop, TGS]; moves [at, first, last, ratio]; best: TGS of the reference.
  trend(figure, data) {
    const svg = figure.querySelector("svg"), count = data.v.length, tip = tooltip(figure);
    let from = 0, to = count, near = null, ring = null, chosen = null, pressed = null;
    let width, x, y, index;

    function paint(wide) {
      width = wide;
      const values = data[metric.key], speed = metric.key === "v";
      let low = speed ? data.best : Infinity, high = speed ? data.best : -Infinity;
      for (let i = from; i < to; i++) {
        low = Math.min(low, values[i]);
        high = Math.max(high, values[i]);
      }
      const pad = 0.06 * (high - low) || 0.01 * high || 1;
      low -= pad;
      high += pad;
      const across = width - LEFT - RIGHT, down = HEIGHT - TOP - BOTTOM;
      x = (i) => LEFT + ((i - from + 0.5) / (to - from)) * across;
      y = (value) => TOP + ((high - value) / (high - low)) * down;
      index = (at) => clamp(Math.floor(((at - LEFT) / across) * (to - from)) + from, from, to - 1);
      for (const value of ticks(low, high, 5)) {
        element(svg, "line", {class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value)});
        element(svg, "text", {x: LEFT - 6, y: y(value) + 4, "text-anchor": "end"}, metric.text(value));
      }
      element(svg, "text", {x: 4, y: 12}, metric.title);
      const dates = Math.max(1, Math.min(6, to - from, Math.floor(across / (13 * LETTER))));
      for (let k = 0; k < dates; k++) {
        const i = dates === 1 ? from : from + Math.round((k * (to - from - 1)) / (dates - 1));
        const anchor = k === 0 ? "start" : k === dates - 1 ? "end" : "middle";
        element(svg, "text", {x: x(i), y: HEIGHT - 8, "text-anchor": dates === 1 ? "middle" : anchor}, time(data.t[i]).slice(0, 10));
      }
      for (const [, first, last] of data.moves.filter((move) => move[2] >= from && move[1] < to)) {
        const start = x(Math.max(first, from) - 1), stop = x(Math.min(last, to - 1));
        element(svg, "rect", {class: "likely", x: start, width: stop - start, y: TOP, height: down});
      }
      dots(values);
      if (speed) {
        element(svg, "line", {class: "best", x1: LEFT, x2: width - RIGHT, y1: y(data.best), y2: y(data.best)});
        let path = "";
        for (const [start, stop, level] of data.levels) {
          if (stop > from && start < to) path += `M${x(Math.max(start, from) - 0.5)} ${y(level)}H${x(Math.min(stop, to) - 0.5)}`;
        }
        element(svg, "path", {class: "level", d: path});
      }
      let free = -Infinity;
      for (const [at, , , ratio] of data.moves.filter((move) => move[0] > from && move[0] < to)) {
        const here = x(at - 0.5), way = ratio < 1 ? 1 : -1;
        element(svg, "line", {class: "move", x1: here, x2: here, y1: TOP, y2: HEIGHT - BOTTOM});
        element(svg, "path", {class: ratio < 1 ? "slower" : "faster", d: `M${here - 6} ${TOP - 4 - 4 * way}h12l-6 ${8 * way}z`});
        if (here > free) {
          const before = here > width - 70;
          element(svg, "text", {x: here + (before ? -9 : 9), y: TOP - 2, "text-anchor": before ? "end" : "start"}, percent(ratio - 1));
          free = here + 70;
        }
      }
      ring = element(svg, "circle", {class: "near", r: 5, visibility: "hidden"});
      chosen = element(svg, "rect", {class: "chosen", y: TOP, height: down, width: 0});
      return HEIGHT;
    }

    // One path: a dot a run, or, where several share a column of pixels, the line from the lowest to the highest.
    function dots(values) {
      const columns = 2 * width, thin = to - from > columns;
      let path = "";
      if (thin) {
        for (let k = 0; k < columns; k++) {
          const start = from + Math.floor((k * (to - from)) / columns), stop = from + Math.floor(((k + 1) * (to - from)) / columns);
          let low = Infinity, high = -Infinity;
          for (let i = start; i < stop; i++) {
            low = Math.min(low, values[i]);
            high = Math.max(high, values[i]);
          }
          path += `M${x(start).toFixed(1)} ${y(high).toFixed(1)}V${(y(low) + 0.1).toFixed(1)}`;
        }
      } else {
        for (let i = from; i < to; i++) path += `M${x(i).toFixed(1)} ${y(values[i]).toFixed(1)}h0`;
      }
      element(svg, "path", {class: "runs", "stroke-width": thin ? 1 : clamp(1.25 * width / (to - from), 2.5, 7), d: path});
    }

    function show(i) {
      near = i;
      ring.setAttribute("cx", x(i));
      ring.setAttribute("cy", y(data[metric.key][i]));
      ring.setAttribute("visibility", "visible");
      const level = data.levels.find(([, stop]) => i < stop)[2];
      tip.show([
        `run ${i + 1} of ${count}, ${time(data.t[i])} UTC`,
        data.revisions[data.r[i]] ?? "no revision recorded",
        `${figures(data.v[i])} TGS, ${percent(data.v[i] / data.best - 1)} to the best level`,
        `level ${figures(level)}`,
        `peak memory ${data.m[i]} MiB, start-up ${data.s[i]} s`,
      ].join("\n"), x(i), TOP + 4);
    }

    function hide() {
      tip.hide();
      ring.setAttribute("visibility", "hidden");
    }

    function zoom(start, stop) {
      [from, to] = [start, stop];
      tip.hide();
      again();
    }

    const place = (event) => event.clientX - svg.getBoundingClientRect().left;
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
    const again = fitted(figure, paint);
    if (!trends.length) choice(figure);
    trends.push(again);
  },

  // Speeds as bars, a row each, in groups below a title of their own.
  // data: unit; groups [{title, bars: [{label, series, kind, value, low, high, text, said, link}]}]: `series` is the
  // number of the bar's colour, `text` stands behind the bar (or in its place, without a value), `said` in its box.
  bars(figure, data) {
    const svg = figure.querySelector("svg"), tip = tooltip(figure);
    const all = data.groups.flatMap((group) => group.bars);
    const largest = Math.max(1e-9, ...all.map((bar) => bar.high ?? bar.value ?? 0));
    let rows = [], near = -1;

    function paint(width) {
      const narrow = width < NARROW, widest = Math.max(...all.map((bar) => bar.label.length));
      const start = narrow ? 2 : clamp(widest * LETTER + 12, 90, 0.35 * width);
      const most = Math.max(...all.map((bar) => bar.text.length)) * LETTER + 10;
      const across = width - start - Math.min(most, 0.4 * width);
      const x = (value) => start + (value / largest) * across;
      const height = narrow ? 38 : 24, thick = narrow ? 18 : 17;
      const total = data.groups.reduce((sum, group) => sum + 32 + height * group.bars.length, 0) + 26;
      for (const value of ticks(0, largest, narrow ? 3 : 6)) {
        element(svg, "line", {class: "grid", x1: x(value), x2: x(value), y1: 22, y2: total - 4});
        element(svg, "text", {x: x(value), y: 14, "text-anchor": value ? "middle" : "start"}, value ? round(value) : data.unit);
      }
      let y = 26;
      rows = [];
      for (const group of data.groups) {
        element(svg, "text", {class: "group", x: 2, y: y + 20}, group.title);
        y += 30;
        for (const bar of group.bars) {
          const top = y + (narrow ? 16 : 2), middle = top + thick / 2;
          const within = bar.link ? element(svg, "a", {href: "#" + bar.link}) : svg;
          element(within, "text", narrow ? {x: 2, y: y + 12} : {x: start - 8, y: middle + 4, "text-anchor": "end"}, bar.label);
          if (bar.value !== null) {
            element(within, "rect", {class: `bar s${bar.series % 8} ${bar.kind}`, x: start, y: top, width: Math.max(1, x(bar.value) - start), height: thick});
          }
          if (bar.low !== null) {
            const whisker = `M${x(bar.low)} ${middle}H${x(bar.high)}M${x(bar.low)} ${middle - 4}v8M${x(bar.high)} ${middle - 4}v8`;
            element(within, "path", {class: "halo", d: whisker});
            element(within, "path", {class: "whisker", d: whisker});
          }
          const end = bar.value === null ? start : x(Math.max(bar.value, bar.high ?? 0));
          element(within, "text", {class: bar.value === null ? "absent" : "", x: end + 6, y: middle + 4}, bar.text);
          // What a pointer meets: the whole row.
          const row = element(within, "rect", {class: "row", x: 0, y, width, height});
          const number = rows.push({bar, row, x: Math.min(end, width - 40), y: y + height}) - 1;
          row.addEventListener("pointermove", () => show(number));
          y += height;
        }
      }
      return total;
    }

    function show(number) {
      rows[near]?.row.classList.remove("at");
      near = number;
      rows[near].row.classList.add("at");
      tip.show(rows[near].bar.said, rows[near].x, rows[near].y);
    }

    function hide() {
      rows[near]?.row.classList.remove("at");
      tip.hide();
    }

    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", (event) => {
      const step = {ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1}[event.key];
      if (!step) return;
      event.preventDefault();
      show(clamp(near + step, 0, rows.length - 1));
    });
    fitted(figure, paint);
  },

  // Points over a logarithmic axis, each with a box; lines at equal heights.
  // data: across, up: titles of the axes; points [{x, y, series, said}]; names of the series; lines [{y, text}];
  // limits of y [low, high]: what lies beyond is drawn at the limit.
  scatter(figure, data) {
    const svg = figure.querySelector("svg"), tip = tooltip(figure), points = data.points;
    const shapes = ["M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z", "M-4-4h8v8h-8z", "M0-5l5 9h-10z", "M0-5l5 5l-5 5l-5-5z", "M0 5l5-9h-10z", "M-4-4l8 8m0-8l-8 8", "M-5 0h10m-5-5v10", "M-4 0h8"];
    const low = Math.log10(Math.min(...points.map((each) => each.x))) - 0.1, high = Math.log10(Math.max(...points.map((each) => each.x))) + 0.1;
    const order = points.map((_, number) => number).sort((a, b) => points[a].x - points[b].x);
    let near = -1, ring, x, y;

    function paint(width) {
      const [bottom, top] = data.limits, tall = 340, names = width < NARROW ? 1 : Math.max(1, Math.floor(width / (Math.max(...data.names.map((name) => name.length)) * LETTER + 40)));
      const begin = 24 + 18 * Math.ceil(data.names.length / names), down = tall - 40;
      x = (value) => LEFT + ((Math.log10(value) - low) / (high - low)) * (width - LEFT - RIGHT);
      y = (value) => begin + ((top - clamp(value, bottom, top)) / (top - bottom)) * down;
      data.names.forEach((name, number) => {
        const left = 10 + (number % names) * (width / names), up = 12 + 18 * Math.floor(number / names);
        element(svg, "path", {class: `mark s${number % 8}`, d: shapes[number % 8], transform: `translate(${left} ${up - 4})`});
        element(svg, "text", {x: left + 12, y: up}, name);
      });
      for (const value of ticks(bottom, top, 8)) {
        element(svg, "line", {class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value)});
        element(svg, "text", {x: LEFT - 6, y: y(value) + 4, "text-anchor": "end"}, round(value));
      }
      for (let power = Math.floor(low); power <= high; power++) {
        for (const step of [1, 2, 5]) {
          const value = step * 10 ** power, at = x(value);
          if (at < LEFT || at > width - RIGHT || (width < NARROW && step > 1 && high - low > 1.5)) continue;
          element(svg, "line", {class: "grid", x1: at, x2: at, y1: begin, y2: begin + down});
          element(svg, "text", {x: at, y: begin + down + 16, "text-anchor": at > width - 40 ? "end" : "middle"}, round(value));
        }
      }
      for (const line of data.lines) element(svg, "line", {class: "move", x1: LEFT, x2: width - RIGHT, y1: y(line.y), y2: y(line.y)});
      for (const line of data.lines) element(svg, "text", {class: "small", x: LEFT + 4, y: y(line.y) - 4}, line.text);
      element(svg, "text", {x: 4, y: begin - 10}, data.up);
      element(svg, "text", {x: width - RIGHT, y: begin + down + 34, "text-anchor": "end"}, data.across);
      for (const point of points) {
        element(svg, "path", {class: `mark s${point.series % 8}`, d: shapes[point.series % 8], transform: `translate(${x(point.x)} ${y(point.y)})`});
      }
      ring = element(svg, "circle", {class: "near", r: 9, visibility: "hidden"});
      return begin + down + 44;
    }

    function show(number) {
      near = number;
      const point = points[near];
      ring.setAttribute("cx", x(point.x));
      ring.setAttribute("cy", y(point.y));
      ring.setAttribute("visibility", "visible");
      tip.show(point.said, x(point.x), y(point.y) + 12);
    }

    function hide() {
      tip.hide();
      ring.setAttribute("visibility", "hidden");
    }

    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect(), left = event.clientX - box.left, up = event.clientY - box.top;
      const away = (point) => (x(point.x) - left) ** 2 + (y(point.y) - up) ** 2;
      const nearest = points.reduce((best, point, number) => (away(point) < away(points[best]) ? number : best), 0);
      if (away(points[nearest]) < 1600) show(nearest);
      else hide();
    });
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", (event) => {
      const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
      if (!step) return;
      event.preventDefault();
      show(order[clamp((near < 0 ? -1 : order.indexOf(near)) + step, 0, points.length - 1)]);
    });
    fitted(figure, paint);
  },
};

document.querySelectorAll("table").forEach(sortable);
document.querySelectorAll(".wide").forEach(scrolled);
let drawn = 0;
for (const figure of document.querySelectorAll("figure[data-draw]")) {
  draw[figure.dataset.draw](figure, JSON.parse(figure.querySelector("script").textContent));
  drawn++;
}
document.documentElement.dataset.drawn = drawn;
