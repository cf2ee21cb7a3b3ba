// The page: a picture comes in, a job goes out, its progress is followed, what came of it is shown.

import { asked, drawn, restore } from "./ask.js";
import { at, make, request, say, show } from "./elements.js";
import { caption, chosen, fields, fill, model } from "./form.js";
import { mask } from "./mask.js";
import * as past from "./past.js";
import { view } from "./view.js";

const MOST_BYTES = 20 * 2 ** 20;
let source = null; // the file that is worked on
let current = null; // id of the job that is shown or followed
let adopted = null; // id of the job that ran when the page was loaded, whose fields it has not
let shown = null; // id of the job whose result is on the page
let preview = "";
const then = new Map(); // what is done when a job ends, by its id

// ------------------------------------------------------------------ problems

function problem(error) {
  at("problem").hidden = false;
  at("problem").textContent = error.message;
}

const trying = (work) => async (...given) => {
  at("problem").hidden = true;
  try {
    return await work(...given);
  } catch (error) {
    problem(error);
  }
};

// ------------------------------------------------------------------ the picture

let sending = Promise.resolve(); // what comes in now; a job waits for it

function send(file) {
  sending = sent(file);
  return sending;
}

async function sent(file) {
  if (file.size > MOST_BYTES) throw new Error(`${file.name} has ${(file.size / 2 ** 20).toFixed(0)} MB; the limit is 20 MB`);
  const was = at("about").textContent; // of the picture that stays where this one is refused
  at("about").textContent = `sending ${file.name} …`;
  try {
    use(await request("POST", `/api/files?name=${encodeURIComponent(file.name.slice(-400))}`, file, false), true);
  } catch (error) {
    at("about").textContent = was;
    throw error;
  }
}

// Work on a file that the server holds; its own settings come back where `settings` says so.
function use(file, settings) {
  source = file;
  at("empty").hidden = true;
  at("stage").hidden = file.size === null;
  if (file.size) {
    show(at("source"), `/api/files/${file.id}/preview`, `The picture ${file.name}`);
    mask.over(...file.size);
  }
  const size = file.size ? `, ${file.size.join("×")}` : "";
  at("about").textContent = [`${file.name}${size}`, file.made, ...file.notes].filter(Boolean).join(" · ");
  if (settings) restore(file.settings);
  chosen();
}

const choose = trying(async () => {
  const [file] = at("file").files;
  if (file) await send(file);
  at("file").value = "";
});
at("file").addEventListener("change", choose);
for (const name of ["dragenter", "dragover"]) document.addEventListener(name, (event) => { event.preventDefault(); at("drop").classList.add("over"); });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) at("drop").classList.remove("over"); });
document.addEventListener("drop", trying(async (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) await send(file);
}));
document.addEventListener("paste", trying(async (event) => {
  const file = [...event.clipboardData.files][0];
  if (file) { event.preventDefault(); await send(file); }
}));

// ------------------------------------------------------------------ jobs

async function start(wanted, after) {
  at("run").disabled = at("compare").disabled = at("draw").disabled = true;
  try {
    return await queued(wanted, after);
  } finally {
    at("run").disabled = at("compare").disabled = at("draw").disabled = false;
  }
}

async function queued(wanted, after) {
  const job = await request("POST", "/api/jobs", wanted);
  if (after) then.set(job.id, after);
  current = job.id;
  past.take({ jobs: [job], waiting: [] });
  render();
  at("progress").scrollIntoView({ block: "nearest" });
  return job;
}

at("ask").addEventListener("submit", (event) => { event.preventDefault(); run(); });
const go = (kind) => trying(async () => {
  await sending.catch(() => null); // its own problem is told
  await start(await asked(kind, source));
});
const run = go("run");
at("compare").addEventListener("click", go("compare"));
at("cancel").addEventListener("click", trying(async () => { if (current) await request("DELETE", `/api/jobs/${current}`); }));
at("dice").addEventListener("click", () => { fields.caption.value = caption(); });
at("draw").addEventListener("click", trying(() => draw()));

// Have a picture drawn; it is then the one that is worked on.
const draw = (after) => start(drawn(), async (job) => {
  use(await request("POST", `/api/jobs/${job.id}/files/picture`), true);
  if (after) await after();
});

at("example").addEventListener("click", trying(() => {
  fields.model.value = "scenes-sd";
  fields.caption.value = caption(true);
  return draw(async () => {
    fields.target_prompt.value = fields.prompt.value.replace("red", "blue");
    fields.editor.value = "auto";
    chosen();
    await run();
  });
}));

const open = trying((id) => {
  sending = opened(id, true);
  return sending;
});

// Show a job; the fields go back to what was asked where that is wanted.
async function opened(id, restores) {
  current = id;
  const job = past.get(id);
  if (past.busy(job)) return render();
  const told = await request("GET", `/api/jobs/${id}`);
  if (current !== id) return; // another one was opened meanwhile
  shown = id;
  view(told, (from, name) => trying(async () => use(await request("POST", `/api/jobs/${from}/files/${name}`), true))());
  if (restores && told.kind !== "sample") await back(told.asked, () => current === id);
  render();
  at("result").focus({ preventScroll: true });
}

// The fields and the picture as they were; a picture that the session has given up stays away.
async function back(wanted, still) {
  if (wanted.source !== source?.id) {
    const file = await request("GET", `/api/files/${wanted.source}`).catch(() => null);
    if (!still()) return;
    if (file) use(file, false);
  }
  restore(wanted);
  if (wanted.mask_file) await mask.load(`/api/files/${wanted.mask_file}/preview`, still);
}

function render() {
  const job = past.get(current);
  const follows = past.busy(job);
  at("progress").hidden = !follows;
  if (follows) at("welcome").hidden = true;
  at("shown").hidden = follows || shown === null || shown !== current;
  if (follows) progress(job);
  past.list(current, open);
}

function progress(job) {
  const [done, of] = job.step;
  at("doing").textContent = job.title;
  const text = job.state === "waiting" ? `waits, ${past.place(job) + 1}. in line` : of ? `${job.stage}, step ${done} of ${of}` : job.stage;
  at("stage-text").textContent = text;
  if (of) at("bar").value = done / of; else at("bar").removeAttribute("value");
  at("forming").hidden = job.previews === 0;
  const seen = `/api/jobs/${job.id}/preview?n=${job.previews}`;
  if (job.previews && job.state === "running" && preview !== seen) {
    preview = seen;
    const next = new Image(); // shown once it is there, so that nothing flickers
    next.addEventListener("load", () => { if (preview === seen) show(at("preview"), seen, "The picture as it forms"); });
    next.src = seen;
  }
}

// ------------------------------------------------------------------ what the server says as it happens

function listen() {
  const events = new EventSource("/api/events");
  let first = true;
  events.addEventListener("message", (event) => {
    const told = JSON.parse(event.data);
    if (first) past.forget(new Set(told.jobs.map((job) => job.id))); // a server that was started anew has others
    const ended = told.jobs.filter((job) => !past.busy(job) && (past.busy(past.get(job.id)) || then.has(job.id)));
    past.take(told);
    if (first && current === null) adopted = current = past.running()?.id ?? null; // the page was loaded while something ran
    first = false;
    render();
    for (const job of ended) finished(job);
  });
  events.addEventListener("open", () => { first = true; });
}

const finished = trying(async (job) => {
  const after = then.get(job.id);
  then.delete(job.id);
  say(`${job.title}: ${job.state}`);
  if (job.id === current) await opened(job.id, job.id === adopted); // what was typed while it ran stays
  if (after && job.state === "done") await after(job);
});

// ------------------------------------------------------------------ theme and reports

const THEMES = { "": "as the system", light: "light", dark: "dark" };
function theme(name) {
  if (name) document.documentElement.dataset.theme = name; else delete document.documentElement.dataset.theme;
  at("theme").textContent = `Theme: ${THEMES[name]}`;
  localStorage.setItem("theme", name);
}
at("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  theme(names[(names.indexOf(localStorage.getItem("theme") ?? "") + 1) % names.length]);
});
theme(localStorage.getItem("theme") in THEMES ? localStorage.getItem("theme") : "");

async function reports() {
  const { reports: found } = await request("GET", "/api/reports");
  at("reports").hidden = found.length === 0;
  at("report-list").replaceChildren(...found.map((each) => make("li", {},
    make("a", { href: `/reports/${each.name.split("/").map(encodeURIComponent).join("/")}`, target: "_blank", rel: "noopener" }, each.title),
    ` `, make("small", { class: "note" }, each.name))));
}

const begin = trying(async () => {
  fill(await request("GET", "/api/facts"));
  fields.editor.value = "auto";
  chosen();
  listen();
  await reports();
  if (model().takes_prompt === false) say(`${model().name} takes no words`);
});
begin();
