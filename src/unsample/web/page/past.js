// The jobs of this session, newest first: what waits, what runs, what is done.

import { at, make, request, show } from "./elements.js";

const jobs = new Map();
const THUMBS = ["edit", "reconstruction", "picture", "figure", "source"];
let waiting = [];

export const get = (id) => jobs.get(id);
export const running = () => [...jobs.values()].find((job) => job.state === "running");
export const busy = (job) => job && (job.state === "running" || job.state === "waiting");
export const place = (job) => waiting.indexOf(job.id);

// Take in what has changed.
export function take(told) {
  waiting = told.waiting;
  for (const job of [...told.jobs].reverse()) jobs.set(job.id, job);
}

export function forget(known) {
  for (const id of [...jobs.keys()]) if (!known.has(id)) jobs.delete(id);
}

export function list(current, open) {
  at("past").hidden = jobs.size === 0;
  const order = [...jobs.values()].sort((a, b) => b.begun - a.begun);
  at("jobs").replaceChildren(...order.map((job) => entry(job, current, open)));
}

function entry(job, current, open) {
  const name = THUMBS.find((each) => job.files.includes(each));
  const thumb = name ? make("img", { loading: "lazy" }) : make("span", { class: "thumb" });
  if (name) show(thumb, `/api/jobs/${job.id}/files/${name}`, "");
  const state = job.state === "waiting" ? `waits, ${place(job) + 1}. in line` : job.state;
  const time = job.seconds === null ? "" : `, ${job.seconds.toFixed(1)} s`;
  return make("li", {},
    make("button", { type: "button", "data-job": job.id, "aria-current": String(job.id === current), onclick: () => open(job.id) },
      thumb, make("span", {}, job.title, make("small", {}, `${state}${time}`))),
    busy(job) ? make("button", { type: "button", "aria-label": `Cancel ${job.title}`, onclick: () => request("DELETE", `/api/jobs/${job.id}`) }, "Cancel") : null);
}
