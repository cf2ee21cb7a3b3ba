// Small helpers: elements by id, new elements (text is always text, never markup), and requests to our own server.

export const at = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function drawing(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export class Problem extends Error {}

export async function request(method, path, body, json = true) {
  const options = { method };
  if (body !== undefined) {
    options.body = json ? JSON.stringify(body) : body;
    options.headers = { "Content-Type": json ? "application/json" : "application/octet-stream" };
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Problem("the server does not answer; is it still running?");
  }
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Problem(told.error?.message ?? `the server answered ${answer.status}`);
  return told;
}

// Show a picture; small ones with hard edges, since nothing lies between their pixels.
export function show(image, address, text) {
  image.addEventListener("load", () => image.classList.toggle("sharp", image.naturalWidth < 256), { once: true });
  image.alt = text;
  image.src = address;
}

export function number(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  return size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : size >= 0.01 ? value.toPrecision(3) : value.toExponential(1);
}

// Said to those who listen to the page.
export function say(text) {
  at("said-now").textContent = text;
}
