// A mask painted over the picture: white is edited, black is kept. By pointer, or by keys: arrows, space, shift.

import { at, request, say } from "./elements.js";

const canvas = at("paint");
const MOST = 1024; // pixels of a side that are painted on
let place = null; // of the brush, for keys
let painting = false;

const paints = () => [...at("ask").querySelectorAll("[name=mask]")].find((each) => each.checked)?.value === "file";
const context = () => canvas.getContext("2d");
const radius = () => (Number(at("brush-size").value) / 100) * Math.max(canvas.width, canvas.height) / 2 + 0.5;

function dab(x, y, erase) {
  const c = context();
  c.globalCompositeOperation = erase ? "destination-out" : "source-over";
  c.fillStyle = "#ff2d78";
  c.beginPath();
  c.arc(x, y, radius(), 0, 2 * Math.PI);
  c.fill();
  mask.empty = false;
}

function stroke(from, to, erase) {
  const steps = Math.max(1, Math.ceil(Math.hypot(to.x - from.x, to.y - from.y) / Math.max(1, radius() / 2)));
  for (let k = 0; k <= steps; k++) dab(from.x + ((to.x - from.x) * k) / steps, from.y + ((to.y - from.y) * k) / steps, erase);
}

function under(event) {
  const box = canvas.getBoundingClientRect();
  return { x: ((event.clientX - box.left) / box.width) * canvas.width, y: ((event.clientY - box.top) / box.height) * canvas.height };
}

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  painting = true;
  place = under(event);
  dab(place.x, place.y, at("erase").checked);
});
canvas.addEventListener("pointermove", (event) => {
  if (!painting) return;
  const next = under(event);
  stroke(place, next, at("erase").checked);
  place = next;
});
for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { painting = false; });

canvas.addEventListener("keydown", (event) => {
  const step = Math.max(1, radius() / 2);
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  place ??= { x: canvas.width / 2, y: canvas.height / 2 };
  if (event.key in moves) {
    const [dx, dy] = moves[event.key];
    place = { x: Math.min(canvas.width, Math.max(0, place.x + dx)), y: Math.min(canvas.height, Math.max(0, place.y + dy)) };
    say(`brush at ${Math.round((100 * place.x) / canvas.width)} %, ${Math.round((100 * place.y) / canvas.height)} % from the top left`);
  } else if (event.key === " ") {
    dab(place.x, place.y, event.shiftKey || at("erase").checked);
    say(event.shiftKey || at("erase").checked ? "erased" : "painted");
  } else return;
  event.preventDefault();
});

at("clear-mask").addEventListener("click", () => mask.clear());
at("ask").addEventListener("change", () => mask.look());

export const mask = {
  empty: true,

  // Fit the canvas to a new picture.
  over(width, height) {
    const scale = Math.min(1, MOST / Math.max(width, height));
    canvas.width = Math.max(1, Math.round(width * scale));
    canvas.height = Math.max(1, Math.round(height * scale));
    place = null;
    this.clear();
    this.look();
  },

  look() { canvas.hidden = !paints() || at("stage").hidden; },

  clear() {
    context().clearRect(0, 0, canvas.width, canvas.height);
    this.empty = true;
  },

  // Paint what an earlier mask had painted, if it is still wanted when it has come.
  async load(address, still) {
    const image = new Image();
    image.src = address;
    try { await image.decode(); } catch { return; } // the session has given it up
    if (!still()) return;
    this.clear();
    const c = context();
    c.globalCompositeOperation = "source-over";
    c.drawImage(image, 0, 0, canvas.width, canvas.height);
    const found = c.getImageData(0, 0, canvas.width, canvas.height);
    for (let k = 0; k < found.data.length; k += 4) found.data.set([255, 45, 120, found.data[k] > 127 ? 255 : 0], k);
    c.putImageData(found, 0, 0);
    this.empty = false;
    this.look();
  },

  // Send it as a picture of white on black; its id.
  async sent() {
    if (this.empty) throw new Error("nothing is painted yet: paint over the picture, or choose another mask");
    const own = document.createElement("canvas");
    own.width = canvas.width;
    own.height = canvas.height;
    const c = own.getContext("2d");
    const painted = context().getImageData(0, 0, own.width, own.height);
    for (let k = 0; k < painted.data.length; k += 4) {
      const value = painted.data[k + 3] > 127 ? 255 : 0;
      painted.data.set([value, value, value, 255], k);
    }
    c.putImageData(painted, 0, 0);
    const blob = await new Promise((done) => own.toBlob(done, "image/png"));
    return (await request("POST", "/api/files?name=mask.png", blob, false)).id;
  },

};
