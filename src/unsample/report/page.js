// Sorting by a click on a column's head; the page reads the same without it.
for (const table of document.querySelectorAll("table.figures")) {
  const body = table.tBodies[0];
  for (const head of table.tHead.rows[0].cells) {
    const name = head.querySelector("span");
    if (!name) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name.textContent;
    name.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const order = row => parseFloat(row.cells[head.cellIndex].dataset.order);
      const known = [...body.rows].filter(row => !Number.isNaN(order(row)));
      const unknown = [...body.rows].filter(row => Number.isNaN(order(row)));
      known.sort((a, b) => (order(a) === order(b) ? 0 : (order(a) < order(b) ? -1 : 1)) * (down ? -1 : 1));
      body.append(...known, ...unknown);
    });
  }
}
