// From the fields to what is asked of the server, and back: from an earlier job, or from what a file says of itself.

import { at } from "./elements.js";
import { chosen, edits, fields, given, model, offers, settle } from "./form.js";
import { mask } from "./mask.js";

const NUMBERS = ["edit_guidance_scale", "guidance_scale", "sampling_guidance_scale", "strength"];
const WHOLE = ["steps", "seed"];
const CHOSEN = ["guidance_schedule", "fit", "clip"];
const radios = () => [...at("ask").querySelectorAll("[name=mask]")];

function amount(name, otherwise) {
  const field = fields[name];
  if (field.validity.badInput) throw new Error(`“${field.labels[0].firstChild.textContent.trim()}” is no number`);
  return field.value.trim() === "" ? otherwise : Number(field.value);
}

// What is asked; `kind` is "run" or "compare". A drawn mask is sent first.
export async function asked(kind, source) {
  const text = (name) => (fields[name].disabled ? null : fields[name].value.trim());
  const words = model().takes_prompt !== false;
  const wanted = { kind, source: source?.id ?? null, model: model().name, prompt: words ? text("prompt") : null };
  for (const name of WHOLE) wanted[name] = amount(name, name === "steps" ? 50 : 0);
  for (const name of NUMBERS) wanted[name] = amount(name, null);
  for (const name of CHOSEN) wanted[name] = fields[name].value;
  if (words && text("negative_prompt")) wanted.negative_prompt = text("negative_prompt");
  if (!at("classes").hidden) {
    for (const name of ["class_labels", "negative_class_labels"]) wanted[name] = fields[name].value.trim() || null;
  }
  wanted.force = fields.force.checked;
  if (kind === "compare") {
    wanted.methods = [...at("methods").querySelectorAll("input:checked")].map((each) => each.value);
    wanted.quick = fields.quick.checked;
  } else {
    Object.assign(wanted, { method: fields.method.value, settings: given("method") });
    wanted.first_step_radius = fields.first_step_radius.checked;
  }
  if (!edits()) {
    wanted.edit_guidance_scale = null;
    return wanted;
  }
  wanted.target_prompt = text("target_prompt") || null;
  if (!at("classes").hidden) wanted.target_class_labels = fields.target_class_labels.value.trim() || null;
  Object.assign(wanted, { editor: fields.editor.value, editor_settings: given("editor") });
  Object.assign(wanted, await masked()); // a comparison takes no mask: the server says so
  return wanted;
}

async function masked() {
  const where = radios().find((each) => each.checked).value;
  const wanted = { paste: fields.paste.checked };
  if (where === "") return wanted;
  wanted.mask = where;
  wanted.mask_dilate = amount("mask_dilate", 1);
  wanted.mask_feather = amount("mask_feather", 0);
  if (where === "file") wanted.mask_file = await mask.sent();
  return wanted;
}

export const drawn = () => ({ kind: "sample", model: model().name, prompt: model().takes_prompt === false ? null : fields.caption.value.trim(),
  steps: amount("steps", 50), seed: amount("seed", 0), guidance_scale: model().takes_prompt === false ? null : 3 });

// Fill the fields with what is known; what is not known stays as it is, or, of an earlier job, goes back to the default.
export function restore(known) {
  const put = (name, value) => { fields[name].value = value ?? ""; };
  for (const name of ["prompt", "target_prompt", "negative_prompt", ...NUMBERS, ...WHOLE]) if (name in known) put(name, known[name]);
  for (const name of ["class_labels", "target_class_labels", "negative_class_labels"]) if (name in known) put(name, known[name]);
  for (const name of CHOSEN) if (typeof known[name] === "string" && [...fields[name].options].some((o) => o.value === known[name])) put(name, known[name]);
  for (const name of ["first_step_radius", "force", "paste", "quick"]) if (name in known) fields[name].checked = known[name] === true;
  if (offers("models", known.model)) fields.model.value = known.model;
  if (offers("methods", known.method)) { fields.method.value = known.method; settle("method", known.settings); }
  const edited = known.target_prompt !== null || known.target_class_labels; // what was only inverted says nothing of an editor
  if (edited && offers("editors", known.editor)) { fields.editor.value = known.editor; settle("editor", known.editor_settings); }
  for (const name of ["mask_dilate", "mask_feather"]) if (name in known) put(name, known[name]);
  if ("mask" in known) {
    const found = radios().find((each) => each.value === (known.mask ?? "")) ?? radios()[0];
    found.checked = true;
  }
  if (known.methods?.length) {
    for (const each of at("methods").querySelectorAll("input")) each.checked = known.methods.includes(each.value);
  }
  chosen();
}
