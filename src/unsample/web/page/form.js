// The fields: filled with what the server offers, and what is known of the model, method and editor that are chosen.

import { at, make } from "./elements.js";

const form = at("ask");
export const fields = form.elements;
let facts = null;

const named = (list, name) => list.find((each) => each.name === name);
export const model = () => named(facts.models, fields.model.value);
export const method = () => named(facts.methods, fields.method.value);
export const editor = () => named(facts.editors, fields.editor.value);

export function fill(told) {
  facts = told;
  for (const each of facts.models) fields.model.append(make("option", { value: each.name }, each.name));
  const families = new Map();
  for (const each of facts.methods) {
    if (!families.has(each.family)) families.set(each.family, make("optgroup", { label: each.family }));
    families.get(each.family).append(make("option", { value: each.name }, each.name));
  }
  fields.method.append(...families.values());
  fields.method.value = "ddim";
  for (const each of facts.editors) fields.editor.append(make("option", { value: each.name }, each.name));
  const usual = ["ddim", "fixed_point", "negative_prompt"];
  at("methods").append(...facts.methods.map((each) => make("label", { title: each.summary },
    make("input", { type: "checkbox", name: "methods", value: each.name, checked: usual.includes(each.name) }), each.name)));
  form.addEventListener("change", chosen);
  form.addEventListener("input", chosen);
  fields.caption.value = caption(true);
  chosen();
}

// A caption of the drawn world; the first one is plain.
export function caption(plain = false) {
  const pick = (values) => values[Math.floor(Math.random() * values.length)];
  const words = facts.words;
  if (plain) return "a large red circle at the center on a white background";
  const colour = pick(words.colour);
  const ground = pick(words.background.filter((each) => each !== colour));
  const texture = Math.random() < 0.3 ? `${pick(words.texture.filter((each) => each !== "plain"))} ` : "";
  return `a ${pick(words.size)} ${texture}${colour} ${pick(words.shape)} at the ${pick(words.place)} on a ${ground} background`;
}

let settled = { method: null, editor: null };

// What follows from what is chosen.
export function chosen() {
  const now = model();
  const words = now.takes_prompt !== false;
  for (const name of ["prompt", "target_prompt", "negative_prompt"]) fields[name].disabled = !words;
  fields.editor.disabled = !words;
  at("classes").hidden = !now.classes;
  at("vocabulary").textContent = !now.draws_scenes ? "" : !words
    ? `${now.name} draws ${now.side}×${now.side} scenes and takes no words: it inverts and reconstructs.`
    : `${now.name} knows drawn scenes: “a SIZE (TEXTURE) COLOUR SHAPE at the PLACE on a COLOUR background”, such as ${
      ["size", "texture", "colour", "shape", "place"].map((kind) => facts.words[kind].slice(0, 3).join(", ")).join("; ")} …`;
  at("vocabulary").title = Object.entries(facts.words).map(([kind, values]) => `${kind}: ${values.join(", ")}`).join("\n");
  const refused = now.flow ? method().refuses_flow : method().refuses_diffusion;
  for (const option of fields.method.options) {
    const row = named(facts.methods, option.value);
    option.disabled = Boolean(now.flow ? row.refuses_flow : row.refuses_diffusion) || (!words && row.models === "text");
  }
  at("method-note").textContent = `${method().summary}. ${method().cost ? `Evaluations of the network, in T steps: ${method().cost}.` : ""}${
    refused ? ` It does not run on ${now.name}: ${refused}.` : ""}`;
  at("editor-note").textContent = words ? `${editor().name}: ${editor().summary}` : "";
  at("run").textContent = edits() ? "Invert and edit" : "Invert and reconstruct";
  const masked = [...form.querySelectorAll("[name=mask]")].find((each) => each.checked).value;
  at("brush").hidden = masked !== "file";
  for (const kind of ["method", "editor"]) {
    const row = kind === "method" ? method() : editor();
    if (settled[kind] !== row.name) settings(kind, row);
  }
}

export const edits = () => (!fields.target_prompt.disabled && fields.target_prompt.value.trim() !== "")
  || (!at("classes").hidden && fields.target_class_labels.value.trim() !== "")
  || (!fields.editor.disabled && !editor().needs.includes("target prompt") && Object.keys(given("editor")).length > 0);

// The settings that a method or an editor declares, each with its default as placeholder.
function settings(kind, row) {
  settled[kind] = row.name;
  const place = at(`${kind}-settings`);
  place.replaceChildren(make("legend", {}, `Settings of the ${kind}: ${row.name}`));
  place.hidden = row.settings.length === 0;
  if (row.presets.length) {
    place.append(make("label", {}, "preset", make("select", { "data-setting": "preset" },
      make("option", { value: "" }, "none"), ...row.presets.map((name) => make("option", { value: name }, name)))));
  }
  for (const each of row.settings) {
    place.append(make("label", { title: `${each.what} (${each.type})` }, `${each.name} (${each.type})`,
      make("input", { "data-setting": each.name, placeholder: each.default, autocomplete: "off", maxlength: "2000" })));
  }
}

export function given(kind) {
  const found = {};
  for (const field of at(`${kind}-settings`).querySelectorAll("[data-setting]")) {
    if (field.value.trim() !== "") found[field.dataset.setting] = field.value.trim();
  }
  return found;
}

export function settle(kind, values) {
  const row = kind === "method" ? method() : editor();
  settings(kind, row);
  const place = at(`${kind}-settings`);
  for (const [name, value] of Object.entries(values ?? {})) {
    let field = place.querySelector(`[data-setting="${CSS.escape(name)}"]`);
    const own = row.settings.find((each) => each.name === name);
    if (!field && name.includes(".")) { // of a method within this one
      field = make("input", { "data-setting": name, maxlength: "2000" });
      place.append(make("label", {}, name, field));
    }
    if (field && !(own && own.default === value)) field.value = value;
  }
}

export const offers = (kind, name) => named(facts[kind], name) !== undefined;
