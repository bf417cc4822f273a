"use strict";

const D = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const MARKS = ["M7 2a5 5 0 1 0 .01 0z", "M2.5 2.5h9v9h-9z", "M7 1l6 6-6 6-6-6z", "M7 1.5l6 11H1z", "M1 2h12L7 12.5z", "M5 1h4v4h4v4H9v4H5V9H1V5h4z"];

let group, position = D.positions.length - 1, update = () => {};
const greys = new Map();

function element(name, attributes = {}, ...children) {
  const made = ["svg", "path", "line", "text", "polygon", "title"].includes(name)
    ? document.createElementNS("http://www.w3.org/2000/svg", name)
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== false) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const hue = (run) => `var(--run-${run % 6})`;
function short(value) {
  if (value === null || value === undefined) return "–";
  return value && Math.abs(value) < 1e-3 ? Number(value.toPrecision(2)).toExponential() : String(Number(value.toPrecision(3)));
}
const percent = (value) => value === null ? "–" : `${Math.round(100 * value)}%`;

function mark(run) {
  const path = element("path", { d: MARKS[run % MARKS.length], fill: hue(run) });
  return element("svg", { class: "mark", viewBox: "0 0 14 14", "aria-hidden": "true" }, path);
}

// -- heatmaps, as the loggers' pictures have them: a grey image under the colours of lightning_xai.render ------------

async function loadGrey(index) {
  if (greys.has(index)) return;
  const image = new Image();
  image.src = D.images[index];
  await image.decode();
  const canvas = element("canvas", { width: image.width, height: image.height });
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(image, 0, 0);
  const { data, width, height } = pen.getImageData(0, 0, image.width, image.height);
  const grey = new Uint8ClampedArray(width * height);
  for (let i = 0; i < grey.length; i++) {
    grey[i] = 0.72 * (0.299 * data[4 * i] + 0.587 * data[4 * i + 1] + 0.114 * data[4 * i + 2]) + 30;
  }
  greys.set(index, { grey, width, height });
}

/** The pixel of each strength (0 to 255) over each grey (0 to 255), as canvases hold it. */
function blended(colours) {
  const light = bytes(colours.light), keep = bytes(colours.keep), pixels = new Uint32Array(256 * 256);
  for (let value = 0; value < 256; value++) {
    for (let grey = 0; grey < 256; grey++) {
      const [r, g, b] = [0, 1, 2].map((c) => Math.round(light[3 * value + c] + keep[value] * grey / 255));
      pixels[256 * value + grey] = (255 << 24 | b << 16 | g << 8 | r) >>> 0;
    }
  }
  return pixels;
}

/** Of maps that have a sign, zero is in the middle. */
const SIGNED = { zero: 128, lowest: 1, pixels: blended(D.two_sided) };
const POSITIVE = { zero: 0, lowest: 0, pixels: blended(D.colours) };
const coloursOf = (heats) => heats.signed ? SIGNED : POSITIVE;

/** Where each of `size` pixels lies between the centres of `cells` cells: the cell before it, and how far past it. */
function between(cells, size) {
  const before = new Uint16Array(size), past = new Float32Array(size);
  for (let i = 0; i < size; i++) {
    const at = Math.min(Math.max((i + 0.5) * cells / size - 0.5, 0), cells - 1);
    before[i] = Math.min(Math.floor(at), Math.max(cells - 2, 0));
    past[i] = at - before[i];
  }
  return { before, past };
}

function paint(canvas, heats, frame, sample, scale) {
  const { grey, width, height } = greys.get(frame.images[sample]);
  const { height: rows, width: columns, maps } = heats, { zero, lowest, pixels: colours } = coloursOf(heats);
  const top = frame.tops[sample] || 0, gain = top ? top / (scale || top) : 0;
  const start = (frame.block * heats.labels.length + sample) * rows * columns;
  const strength = (row, column) => {
    const value = maps[start + Math.min(row, rows - 1) * columns + column] - zero;
    return Math.min(255, Math.max(lowest, zero + value * gain));
  };
  const across = between(columns, width), down = between(rows, height);
  const line = new Float32Array(columns + 1), pixels = new Uint32Array(width * height);
  for (let y = 0, place = 0; y < height; y++) {
    const row = down.before[y], fall = down.past[y];
    for (let column = 0; column < columns; column++) {
      line[column] = strength(row, column) * (1 - fall) + strength(row + 1, column) * fall;
    }
    for (let x = 0; x < width; x++, place++) {
      const left = across.before[x], step = across.past[x];
      const value = line[left] * (1 - step) + line[left + 1] * step + 0.5 | 0;
      pixels[place] = colours[256 * value + grey[place]];
    }
  }
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  canvas.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer), width, height), 0, 0);
}

const scaleKind = () => document.querySelector("input[name=scale]:checked").value;

function scaleOf(part, run) {
  const kind = scaleKind();
  if (kind === "map") return null;
  if (kind === "run") return group.runs[run].heats[part].top;
  return Math.max(...group.runs.map((other) => other?.heats[part]?.top ?? 0));
}

function note(frame, sample) {
  if (frame.tops[sample] === null) return "NaN";
  return frame.tops[sample] === 0 ? "no relevance" : "";
}

/** The input image of a sample, or an empty place. */
function input(frame, sample) {
  const index = frame.images[sample];
  const small = greys.get(index).width <= 96;
  return element("img", { class: small ? "tile" : "tile smooth", src: D.images[index], alt: `sample ${sample + 1} as it went in` });
}

function legend(part) {
  const held = element("p", { class: "legend" });
  const bar = element("canvas", { width: 160, height: 1, "aria-hidden": "true" });
  const { signed } = group.runs.find((run) => run?.heats[part]).heats[part], { lowest, pixels } = coloursOf({ signed });
  const row = Uint32Array.from({ length: 160 }, (_, x) => pixels[256 * Math.round(lowest + x / 159 * (255 - lowest)) + 118]);
  bar.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(row.buffer), 160, 1), 0, 0);
  const tops = element("span"), top = (value) => (signed ? "±" : "") + short(value);
  held.append(...(signed ? ["against", bar, "for"] : ["0", bar]), tops);
  held.update = () => {
    const having = group.runs.flatMap((run, index) => run?.heats[part] ? [index] : []);
    const kind = scaleKind();
    tops.replaceChildren(...(kind === "map" ? ["each map's own largest value"]
      : kind === "shared" || having.length === 1 ? [top(scaleOf(part, having[0]))]
      : having.flatMap((run) => [mark(run), top(scaleOf(part, run))])));
  };
  return held;
}

/** Of each run its name, the epoch it stands at, and where its relevance lies. */
function head(run, part) {
  const track = group.runs[run];
  const said = element("div", { class: "faint" }), shares = element("div", { class: "shares" });
  const held = element("th", { scope: "col" }, element("div", { class: "head" },
    element("div", { class: "name" }, mark(run), element("span", {}, D.names[run])), said, shares));
  const charts = group.charts.filter((chart) => chart.name.startsWith("share/"));
  held.update = () => {
    if (!track) {
      said.textContent = group.missing[D.names[run]];
      said.className = "late";
      return;
    }
    const moment = track.at[position];
    const found = track.moments[moment], wanted = D.positions[position];
    said.className = found === wanted ? "faint" : "late";
    said.textContent = found === undefined ? `nothing was read up to ${D.unit} ${wanted}`
      : found === wanted ? track.heats[part]?.frames[moment]?.title ?? `${group.name} at ${track.real}`
      : moment === track.moments.length - 1 ? `ends at ${D.unit} ${found}, which is shown`
      : `not read in ${D.unit} ${wanted}: ${D.unit} ${found} is shown`;
    shares.replaceChildren(...charts.map((chart) => {
      const value = valueAt(chart.lines.find((line) => line.run === run));
      const bar = element("i", {}, element("i", { style: `width:${100 * (value ?? 0)}%;background:${hue(run)}` }));
      return element("div", { class: "share" }, element("span", {}, chart.name.slice(6)), bar, element("b", {}, percent(value)));
    }));
  };
  return held;
}

function cell(part, run, sample) {
  const held = element("td"), heats = group.runs[run]?.heats[part];
  if (!heats || sample >= heats.labels.length) return held;
  const canvas = element("canvas", { class: "tile", role: "img" }), plate = element("em");
  const map = element("div", { class: "map" }, canvas, plate), said = element("div", { class: "said" });
  const latest = heats.frames.findLast((frame) => frame);
  if (group.paired) held.append(map, said);
  else held.append(element("div", { class: "pair" }, input(latest, sample), map), element("div", { class: "said" }, heats.labels[sample]), said);
  const agreement = group.agreement[part]?.[run];
  held.update = () => {
    const frame = heats.frames[group.runs[run].at[position]];
    map.style.visibility = frame ? "visible" : "hidden";
    said.replaceChildren();
    if (!frame) return;
    paint(canvas, heats, frame, sample, scaleOf(part, run));
    canvas.classList.toggle("smooth", canvas.width > 96);
    plate.textContent = note(frame, sample);
    plate.hidden = !plate.textContent;
    const right = frame.right[sample], answer = frame.answers[sample];
    const tick = right === null ? "" : right ? "✓ " : "✗ ";
    said.append(element("span", { class: right === null ? "" : right ? "right" : "wrong" }, tick + answer.replace("\n", ", ")));
    if (agreement) said.append(element("div", { class: "faint" }, `agreement ${agreement[position]?.[sample]?.toFixed(2) ?? "–"}`));
    canvas.setAttribute("aria-label", `${D.names[run]}, ${heats.labels[sample]}: heatmap, ${answer} ${plate.textContent}`);
  };
  return held;
}

/** One table: samples in rows, runs in columns; the samples that end up most different first. */
function samples(part) {
  const having = group.runs.filter((run) => run?.heats[part]);
  const first = having[0].heats[part], latest = first.frames.findLast((frame) => frame);
  const count = Math.max(...having.map((run) => run.heats[part].labels.length));
  const heads = group.runs.map((_, run) => head(run, part));
  const corner = element("th", { scope: "col", class: "faint" }, "input and label");
  const body = element("tbody"), parts = [legend(part), ...heads];
  const rows = Array.from({ length: count }, (_, sample) => {
    const cells = group.runs.map((_, run) => cell(part, run, sample));
    const row = element("tr");
    if (group.paired) row.append(element("th", { scope: "row" }, input(latest, sample), element("div", { class: "said" }, first.labels[sample])));
    row.append(...cells);
    parts.push(...cells);
    return row;
  });
  const known = (group.agreement[part] ?? []).filter((run) => run).map((run) => run.findLast((row) => row) ?? []);
  const lowest = (sample) => Math.min(...known.map((row) => row[sample] ?? 2));
  const order = rows.map((_, index) => index).sort((a, b) => lowest(a) - lowest(b) || a - b);
  const table = element("table", { class: "samples" },
    element("thead", {}, element("tr", {}, ...(group.paired ? [corner] : []), ...heads)), body);
  const held = element("div", {}, ...(part ? [element("h2", {}, part)] : []), parts[0], element("div", { class: "wide" }, table));
  held.update = () => {
    const wanted = known.length && $("sort").checked ? order : rows.keys();
    const now = [...wanted].map((index) => rows[index]);
    if (now.some((row, index) => body.children[index] !== row)) body.replaceChildren(...now);
    for (const each of parts) each.update?.();
  };
  return held;
}

/** Pictures of other kinds, drawn where the runs were read. */
function drawn(part) {
  const held = element("div", {}, element("h2", {}, part || `${group.name} ${group.layer}`));
  const runs = group.runs.map((track, run) => {
    const picture = element("img", { class: "drawn", alt: `${group.name} ${part} of ${D.names[run]}` }), said = element("p", { class: "faint" });
    held.append(element("h3", { class: "name" }, mark(run), D.names[run]), said, picture);
    return () => {
      const places = track?.drawn[part] ?? [];
      const moment = places.findLastIndex((place, index) => place !== null && index <= (track?.at[position] ?? -1));
      picture.hidden = moment < 0;
      said.textContent = moment < 0 ? group.missing[D.names[run]] ?? "not drawn yet" : `${D.unit} ${track.moments[moment]}`;
      if (moment >= 0) picture.src = D.images[places[moment]];
    };
  });
  held.update = () => runs.forEach((each) => each());
  return held;
}

// -- curves ----------------------------------------------------------------------------------------------------------

/** The value of a line where the slider stands: the latest up to there. */
function valueAt(line, key = "y") {
  const index = line ? line.x.findLastIndex((x) => x <= D.positions[position]) : -1;
  return index < 0 ? null : line[key][index];
}

function ticks(low, high, most) {
  const rough = (high - low) / most || 1, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const found = [];
  for (let t = Math.ceil(low / step - 1e-9); t * step <= high + step * 1e-9; t++) found.push(t * step);
  return found;
}

function chart({ name, lines, meaning }) {
  const W = 340, H = 168, L = 44, R = 12, T = 10, B = 24;
  const all = lines.flatMap((line) => [...line.y, ...(line.lower ?? []), ...(line.upper ?? [])]).filter((y) => y !== null);
  let low = Math.min(0, ...all), high = Math.max(...all);
  if (low === high) high = low + 1;
  const first = D.positions[0], last = D.positions.at(-1);
  const x = (at) => last === first ? (L + W - R) / 2 : L + (at - first) / (last - first) * (W - L - R);
  const y = (value) => H - B - (value - low) / (high - low) * (H - T - B);
  const picture = element("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${name} over the ${D.unit}s` });
  for (const tick of ticks(low, high, 4)) {
    picture.append(element("line", { class: "grid", x1: L, x2: W - R, y1: y(tick), y2: y(tick) }),
      element("text", { x: L - 6, y: y(tick) + 4, "text-anchor": "end" }, short(tick)));
  }
  for (const tick of ticks(first, last, 6).filter(Number.isInteger)) {
    picture.append(element("text", { x: x(tick), y: H - 6, "text-anchor": "middle" }, String(tick)));
  }
  for (const line of lines) {
    const points = line.x.map((at, i) => [x(at), line.y[i], i]).filter(([, value]) => value !== null);
    if (line.lower) {
      const banded = points.filter(([, , i]) => line.lower[i] !== null && line.upper[i] !== null);
      const edge = [...banded.map(([at, , i]) => `${at},${y(line.upper[i])}`), ...banded.reverse().map(([at, , i]) => `${at},${y(line.lower[i])}`)];
      picture.append(element("polygon", { points: edge.join(" "), fill: hue(line.run), opacity: 0.18 }));
    }
    const path = points.map(([at, value], i) => `${i ? "L" : "M"}${at.toFixed(1)} ${y(value).toFixed(1)}`).join("");
    picture.append(element("path", { class: "curve", d: path, fill: "none", stroke: hue(line.run), "stroke-width": 2, "stroke-linejoin": "round" }));
    if (points.length <= 20 || line.chance) {
      for (const [at, value, i] of points) {
        picture.append(element("path", { d: MARKS[line.run % MARKS.length], class: line.chance?.[i] ? "hollow" : "", fill: hue(line.run), stroke: hue(line.run), transform: `translate(${at - 3.5} ${y(value) - 3.5}) scale(.5)` }));
      }
    }
  }
  const cursor = element("line", { class: "cursor", y1: T, y2: H - B }), values = element("div", { class: "values" });
  picture.append(cursor);
  picture.addEventListener("pointerdown", (event) => {
    const box = picture.getBoundingClientRect();
    const at = (event.clientX - box.left) / box.width * W;
    const away = D.positions.map((p) => Math.abs(x(p) - at));
    move(away.indexOf(Math.min(...away)));
  });
  const parts = name.split("/");
  const held = element("figure", { class: "chart", style: "margin:0" },
    element("h3", {}, parts.join(" · ").replaceAll("_", " ")), ...(meaning ? [element("p", { class: "faint" }, meaning)] : []), values, picture);
  held.update = () => {
    const at = x(D.positions[position]);
    cursor.setAttribute("x1", at);
    cursor.setAttribute("x2", at);
    values.replaceChildren(...lines.map((line) => {
      const band = line.lower && valueAt(line, "lower") !== null ? ` (${short(valueAt(line, "lower"))} to ${short(valueAt(line, "upper"))})` : "";
      const chance = line.chance && valueAt(line, "chance") ? ", not above chance" : "";
      return element("span", { title: D.names[line.run] }, mark(line.run), short(valueAt(line)) + band + chance);
    }));
  };
  return held;
}

function curves() {
  const same = (chart) => chart.lines.every((line) => line.y.every((value) => value === chart.lines[0].y[0]));
  const flat = group.charts.filter(same), moving = group.charts.filter((each) => !same(each));
  const charts = moving.map(chart);
  const said = flat.map((each) => `${each.name.replaceAll("_", " ")} ${short(each.lines[0].y[0])}`).join(", ");
  const key = element("div", { class: "values", style: "margin-bottom:10px" },
    ...D.names.map((name, run) => element("span", {}, mark(run), name)));
  $("curves").replaceChildren(element("h2", {}, "Over the run"), key, element("div", { class: "charts" }, ...charts),
    ...(said ? [element("p", { class: "faint" }, `The same all along: ${said}.`)] : []));
  return charts;
}

// -- the page --------------------------------------------------------------------------------------------------------

function warnings() {
  const found = Object.entries(group.missing).map(([run, why]) => `${run} shows nothing of ${group.name}: ${why}.`);
  if (!group.paired) {
    const probes = group.runs.flatMap((run, index) => run ? [`${D.names[index]} explained ${run.fingerprint}`] : []);
    found.unshift(`Different probes: ${probes.join(", ")}. These are not the same images, so they are shown unpaired, and the curves are of different samples.`);
  }
  $("warnings").replaceChildren(...found.map((text) => element("p", {}, text)));
}

async function show(index) {
  group = D.groups[index];
  const frames = group.runs.flatMap((run) => Object.values(run?.heats ?? {})).flatMap((heats) => heats.frames);
  await Promise.all([...new Set(frames.flatMap((frame) => frame?.images ?? []))].map(loadGrey));
  for (const heats of group.runs.flatMap((run) => Object.values(run?.heats ?? {}))) {
    if (typeof heats.maps === "string") heats.maps = bytes(heats.maps);
  }
  const own = group.runs.some((run) => Object.values(run?.heats ?? {}).some((heats) => heats.own));
  document.querySelector(`input[value=${own ? "map" : "run"}]`).checked = true;
  warnings();
  const signed = group.runs.some((run) => Object.values(run?.heats ?? {}).some((heats) => heats.signed));
  const what = signed ? "Red speaks for the explained class, blue against it. "
    : frames.length ? "Heat marks where the map named above each column is large. " : "";
  $("lead").textContent = `${what}Move through training with the slider or the arrow keys.`;
  const named = (kind) => [...new Set(group.runs.flatMap((run) => Object.keys(run?.[kind] ?? {})))];
  const parts = [...named("heats").map(samples), ...named("drawn").map(drawn)];
  $("pictures").replaceChildren(...parts);
  $("scale").hidden = !named("heats").length;
  $("sorting").hidden = !Object.keys(group.agreement).length;
  const charts = curves();
  update = () => [...parts, ...charts].forEach((part) => part.update());
  move(position);
}

function move(to) {
  position = Math.min(Math.max(to, 0), D.positions.length - 1);
  const at = D.positions[position];
  $("slider").value = position;
  $("slider").setAttribute("aria-valuetext", `${D.unit} ${at}`);
  $("now").textContent = at;
  $("earlier").disabled = position === 0;
  $("later").disabled = position === D.positions.length - 1;
  redraw();
}

/** At most once a frame, however fast the slider moves. */
function redraw() {
  redraw.asked ??= requestAnimationFrame(() => {
    redraw.asked = null;
    update();
  });
}

function about() {
  const cells = (kind, values) => element("tr", {}, ...values.map((value) => element(kind, {}, value)));
  const rows = D.groups.flatMap((each) => each.runs.flatMap((run, index) => run
    ? [cells("td", [D.names[index], each.name, run.real, run.fingerprint, `${run.taken}, ${D.unit} ${run.moments[0]} to ${run.moments.at(-1)}`])] : []));
  $("about").append(element("thead", {}, cells("th", ["run", "explanation", "layer", "probe", "readings"])), element("tbody", {}, ...rows));
}

function start() {
  const several = D.names.length > 1;
  $("unit").textContent = D.unit[0].toUpperCase() + D.unit.slice(1);
  $("slider").max = D.positions.length - 1;
  $("notes").replaceChildren(...D.notes.map((text) => element("p", {}, text)));
  $("group").append(...D.groups.map((each, index) => element("option", { value: index }, `${each.name}, ${each.layer}`)));
  $("pick").hidden = D.groups.length < 2;
  if (!several) document.querySelector("input[value=shared]").parentElement.remove();
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  $("group").addEventListener("change", (event) => show(Number(event.target.value)));
  $("slider").addEventListener("input", (event) => move(Number(event.target.value)));
  $("earlier").addEventListener("click", () => move(position - 1));
  $("later").addEventListener("click", () => move(position + 1));
  $("scale").addEventListener("change", redraw);
  $("sort").addEventListener("change", redraw);
  document.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const busy = event.target.closest("input:not([type=checkbox]), select") || event.altKey || event.ctrlKey || event.metaKey;
    if (step && !busy) {
      event.preventDefault();
      move(position + step);
    }
  });
  about();
  show(0);
}

start();
