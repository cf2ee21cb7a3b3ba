// A finished job: two pictures under a slider, all of its pictures, health with its bands, cost, commands, files.

import { at, drawing, make, number, say, show } from "./elements.js";

const HEALTH = { mean: "mean", std: "standard deviation", kl: "KL to N(0, 1)", lag1_correlation: "correlation of neighbours" };
const FILES = { edit: "edit (PNG)", reconstruction: "reconstruction (PNG)", "source-size": "edit at the source's size (PNG)", picture: "picture (PNG)",
  inversion: "inversion", figure: "figure (PNG)", table: "table (CSV)", mask: "mask (PNG)", json: "JSON" };
let job = null;

const address = (name) => `/api/jobs/${job.id}/files/${name}`;

export function view(told, use) {
  job = told;
  at("shown").hidden = false;
  at("welcome").hidden = true;
  at("title").textContent = told.title;
  at("failed").hidden = !told.error && told.state !== "cancelled";
  at("failed").textContent = told.error ? told.error.message : "It was cancelled; what was done until then is shown.";
  const result = told.result ?? {};
  const panels = result.panels ?? [];
  pair(panels);
  at("panels").replaceChildren(...strips(panels));
  at("facts").replaceChildren(...[figures(result), health(result.health), cost(result.cost), table(result.table)].filter(Boolean));
  at("shell").textContent = told.shell.join("\n");
  at("python").textContent = told.python;
  at("downloads").replaceChildren(
    ...Object.keys(FILES).filter((name) => told.files.includes(name)).map((name) => make("a", { href: `${address(name)}?download=true`, download: true }, FILES[name])),
    ...["edit", "picture", "inversion"].filter((name) => told.files.includes(name)).map((name) =>
      make("button", { type: "button", onclick: () => use(job.id, name) }, name === "inversion" ? "Go on from the inversion" : `Go on from the ${name}`)));
  const notes = (result.notes ?? []).filter((note) => note.text);
  at("said").hidden = notes.length === 0;
  at("said").open = notes.some((note) => note.tag === "warning" || note.tag === "error");
  at("notes").replaceChildren(...notes.map((note) => make("li", { class: note.tag }, note.tag ? `${note.tag}: ${note.text}` : note.text)));
}

// ------------------------------------------------------------------ the slider

function pair(panels) {
  at("viewer").hidden = panels.length === 0;
  if (!panels.length) return;
  for (const part of [at("slider"), at("divider"), at("sides"), at("left-picture")]) part.hidden = panels.length < 2;
  const names = panels.map((panel) => panel.name);
  for (const side of ["left", "right"]) {
    at(side).replaceChildren(...panels.map((panel) => make("option", { value: panel.name }, panel.label)));
  }
  const right = names.find((name) => name === "edit" || name.endsWith("-edit")) ?? names.find((name) => name.endsWith("reconstruction")) ?? names[0];
  at("left").value = names[0];
  at("right").value = right;
  at("slider").value = 50;
  both();
}

function both() {
  for (const side of ["left", "right"]) {
    const chosen = at(side).selectedOptions[0];
    if (chosen) show(at(`${side}-picture`), address(chosen.value), chosen.textContent);
  }
  for (const button of at("panels").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.dataset.name === at("right").value));
  }
  slide();
}

function slide() {
  const value = at("slider").value;
  at("left-picture").style.clipPath = `inset(0 ${100 - value}% 0 0)`;
  at("divider").style.left = `${value}%`;
  at("slider").setAttribute("aria-valuetext", `${value} % ${at("left").selectedOptions[0]?.textContent ?? ""}`);
}

at("left").addEventListener("change", both);
at("right").addEventListener("change", both);
at("slider").addEventListener("input", slide);
const drag = (event) => {
  if (event.type === "pointermove" && !event.buttons) return;
  const box = at("pair").getBoundingClientRect();
  at("slider").value = Math.round((100 * (event.clientX - box.left)) / box.width);
  slide();
};
at("pair").addEventListener("pointerdown", (event) => { at("pair").setPointerCapture(event.pointerId); drag(event); });
at("pair").addEventListener("pointermove", drag);

// ------------------------------------------------------------------ all of its pictures

// One strip, or of a comparison one a method.
function strips(panels) {
  const groups = new Map();
  for (const panel of panels) {
    const key = panel.method ?? "";
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(panel);
  }
  return [...groups].flatMap(([method, own]) => [
    method ? make("h3", {}, method) : null,
    make("div", { class: "strip", role: "group", "aria-label": method || "Pictures" }, ...own.map(thumb)),
  ]).filter(Boolean);
}

function thumb(panel) {
  const image = make("img", { loading: "lazy" });
  show(image, address(panel.name), "");
  return make("button", {
    type: "button", "data-name": panel.name, "aria-pressed": String(at("right").value === panel.name), title: "Show it on the right; with shift on the left",
    onclick: (event) => {
      at(event.shiftKey ? "left" : "right").value = panel.name;
      both();
      say(`${panel.label} is shown on the ${event.shiftKey ? "left" : "right"}`);
    },
  }, image, make("figcaption", {}, panel.label));
}

// ------------------------------------------------------------------ figures

function block(title, ...children) {
  return make("section", {}, make("h3", {}, title), ...children);
}

function rows(head, body) {
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": head.join(", ") }, make("table", {},
    make("thead", {}, make("tr", {}, ...head.map((cell) => make("th", { scope: "col" }, cell)))),
    make("tbody", {}, ...body.map((row) => make("tr", {}, ...row.map((cell) => make("td", {}, cell)))))));
}

function figures(result) {
  const told = (result.figures ?? []).filter((row) => row.psnr !== null || row.exact);
  if (!told.length) return null;
  const decibels = (row) => (row.exact ? "exact" : `${number(row.psnr)} dB`);
  const body = told.map((row) => [row.what, decibels(row), number(row.ssim), row.ceiling_psnr === null ? "–" : `${number(row.ceiling_psnr)} dB`]);
  const auto = told.map((row) => row.auto).find(Boolean);
  return block("Nearness to the source", rows(["", "PSNR", "SSIM", "encoder alone"], body), auto ? make("p", { class: "note" }, `auto: ${auto}`) : null);
}

function health(told) {
  if (!told) return null;
  const body = Object.entries(HEALTH).filter(([name]) => told.bands?.[name]).map(([name, label]) => {
    const [low, high] = told.bands[name];
    const value = told[name];
    const within = value !== null && low <= value && value <= high;
    const mark = !told.pure_noise ? "" : within ? "within" : "outside";
    return [label, number(value), make("span", {}, band(value, low, high), `${number(low)} to ${number(high)}`), make("span", { class: mark }, mark)];
  });
  const grade = told.grade ? `Grade: ${told.grade}. ` : "";
  return block("Health of the noise", rows(["", "found", "true noise", ""], body),
    make("p", { class: "note" }, `${grade}${told.grade_reason ?? ""}${told.pure_noise ? "" : " It is no pure noise (strength below 1): the bands do not apply."}`));
}

// The band of true noise in the middle third, and where the value lies; at an end where it is far.
function band(value, low, high) {
  const width = high - low || 1;
  const x = value === null ? -10 : Math.min(98, Math.max(2, 100 * ((value - (low - width)) / (3 * width))));
  return drawing("svg", { class: "band", viewBox: "0 0 100 12", preserveAspectRatio: "none", "aria-hidden": "true" },
    drawing("rect", { class: "all", x: 0, y: 4, width: 100, height: 4 }),
    drawing("rect", { class: "true", x: 33.3, y: 2, width: 33.3, height: 8 }),
    drawing("rect", { class: "at", x: x - 1.2, y: 0, width: 2.4, height: 12 }));
}

function cost(told) {
  if (!told?.length) return null;
  const body = told.map((row) => [row.what, number(row.nfe), number(row.backward), row.seconds === null ? "–" : `${number(row.seconds)} s`]);
  return block("Cost", rows(["", "evaluations", "backward", "time"], body));
}

function table(told) {
  if (!told?.length) return null;
  const columns = { method: "method", record_psnr: "its record, dB", noise_psnr: "its noise alone, dB", std: "std of noise", lag1: "neighbours", edit_psnr: "edit, dB", nfe: "evaluations", backward: "backward", seconds: "s", status: "status" };
  const there = Object.entries(columns).filter(([name]) => told.some((row) => row[name] !== undefined && row[name] !== null));
  const place = block("Side by side", rows(there.map(([, label]) => label), told.map((row) => there.map(([name]) => number(row[name])))),
    make("p", { class: "note" }, "PSNR is to the source. Rank methods within a column: a record may hold the picture itself, the noise alone may not."));
  place.style.gridColumn = "1 / -1";
  return place;
}

// ------------------------------------------------------------------ copying

for (const name of ["shell", "python"]) {
  at(`copy-${name}`).addEventListener("click", async (event) => {
    const text = at(name).textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch { // no permission: select it, so that the keys copy it
      getSelection().selectAllChildren(at(name));
    }
    event.target.textContent = "Copied";
    say("copied");
    setTimeout(() => { event.target.textContent = "Copy"; }, 1500);
  });
}
