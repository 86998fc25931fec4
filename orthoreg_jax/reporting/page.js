// A table is sorted by the column whose heading is pressed: rising, falling, then as it was.
const turns = { none: "ascending", ascending: "descending", descending: "none" };

// What a cell is compared by: of numbers the first one, of words the text; nothing comes last.
function measure(row, column, words) {
  const text = row.cells[column].textContent.trim().replaceAll("−", "-");
  return words ? text : parseFloat(text.match(/[-+]?\d[\d.]*(e[-+]\d+)?/)?.[0] ?? "NaN");
}

function compare(a, b, words, sign) {
  if (words) return sign * a.localeCompare(b, "en", { numeric: true });
  return isNaN(a) || isNaN(b) ? isNaN(a) - isNaN(b) : sign * (a - b);
}

for (const table of document.querySelectorAll("table.sortable")) {
  const rows = [...table.tBodies[0].rows];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const turn = turns[head.getAttribute("aria-sort")];
    const words = head.classList.contains("word");
    for (const each of heads) each.setAttribute("aria-sort", each === head ? turn : "none");
    table.classList.toggle("sorted", turn !== "none");
    const order = rows.map((row) => ({ row, key: measure(row, column, words) }));
    const sign = turn === "descending" ? -1 : 1;
    if (turn !== "none") order.sort((a, b) => compare(a.key, b.key, words, sign));
    table.tBodies[0].append(...order.map(({ row }) => row));
  }));
}

addEventListener("beforeprint", () => {
  for (const each of document.querySelectorAll("details")) each.open = true;
});
