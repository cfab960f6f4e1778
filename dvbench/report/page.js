"use strict";

// The raw value of a cell: a number where it carries one, else its words; an empty cell has none.
function raw(cell) {
  if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
  const words = cell.textContent.trim();
  return words === "" || words === "–" ? null : words;
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

// Sort the rows of a heading's table by its column, from the least, or the other way the next time; none comes last.
function sort(button) {
  const head = button.closest("th");
  const table = head.closest("table");
  const way = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  for (const other of table.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", way);

  const sign = way === "ascending" ? 1 : -1;
  const rows = [...table.querySelector("tbody.rows").rows].map((row) => [raw(row.cells[button.dataset.column]), row]);
  rows.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b)));
  table.querySelector("tbody.rows").append(...rows.map(([, row]) => row));
}

function choose(place) {
  const chosen = place.querySelector("select").value;
  for (const plots of place.querySelectorAll(".chosen")) plots.hidden = plots.dataset.metric !== chosen;
}

for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => sort(button));
for (const place of document.querySelectorAll(".choosable")) {
  place.addEventListener("change", () => choose(place));
  choose(place); // a browser may remember another choice
}
