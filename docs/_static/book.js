// Search. Excerpts of results are fetched, which browsers refuse on disk; and Sphinx stumbles over an entry without one.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
document.addEventListener("DOMContentLoaded", () => {
  if (typeof Search !== "undefined") {
    const summary = Search.makeSearchSummary;
    Search.makeSearchSummary = (...given) => summary(...given) ?? document.createElement("p");
  }
  for (const table of document.querySelectorAll("table.ledger, table.statements")) {
    const names = [...table.tHead.rows[0].cells].map(head => head.textContent.trim());
    for (const row of table.tBodies[0].rows) [...row.cells].forEach((cell, i) => { cell.dataset.name = names[i]; });
    if (table.matches(".ledger")) ledger(table, names);
  }
  for (const caption of document.querySelectorAll(".caption[role=heading]")) caption.setAttribute("aria-level", "2");
});
// What can be scrolled, once formulas are set, must be reachable with the keyboard, too.
window.addEventListener("load", async () => {
  await document.fonts.ready;
  for (const box of document.querySelectorAll(".table-wrapper, pre, div.math, td")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
});

// A table that can be searched, narrowed by the columns with few values, and sorted by every column. ?cell=01 narrows at once.
function ledger(table, names) {
  const make = (tag, properties, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...table.tBodies[0].rows].map(row => (
    {row, texts: [...row.cells].map(cell => cell.textContent.trim()), all: row.textContent.toLowerCase()}
  ));
  const collator = new Intl.Collator("en", {numeric: true});
  const query = new URLSearchParams(location.search);
  const search = make("input", {type: "search", placeholder: "Search these rows"});
  search.setAttribute("aria-label", "Search these rows");
  const shown = make("output", {}), bar = make("div", {className: "ledger-bar"}, search);
  const choices = names.map((name, i) => {
    const values = [...new Set(rows.map(row => row.texts[i]))];
    if (values.length < 2 || values.length > 30 || values.length > rows.length / 2) return null;
    const choice = make("select", {}, new Option(`${name}: all`, ""), ...values.sort(collator.compare).map(value => new Option(value, value)));
    choice.setAttribute("aria-label", name);
    if (values.includes(query.get(name))) choice.value = query.get(name);
    bar.append(choice);
    return choice;
  });
  bar.append(shown);
  const narrow = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const {row, texts, all} of rows) {
      row.hidden = !(words.every(word => all.includes(word)) && choices.every((choice, i) => !choice?.value || choice.value === texts[i]));
      count += !row.hidden;
    }
    shown.value = `${count} of ${rows.length}`;
  };
  bar.addEventListener("input", narrow);
  heads.forEach((head, i) => {
    const button = make("button", {type: "button"}, ...head.childNodes);
    head.append(button);
    button.onclick = () => {
      const down = head.getAttribute("aria-sort") === "ascending", sign = down ? -1 : 1;
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      // A column of numbers, with or without a bound's sign; what has none comes last. Others as texts: CE-2 before CE-10.
      const number = text => Number(text.replace(/^[≤≥] */, "").replace("−", "-").replace(/,.*/, "") || NaN);
      const numeric = rows.filter(({texts}) => !Number.isNaN(number(texts[i]))).length > rows.length / 2;
      const by = numeric
        ? (a, b) => Number.isNaN(number(a)) - Number.isNaN(number(b)) || sign * (number(a) - number(b)) || 0
        : (a, b) => sign * collator.compare(a, b);
      rows.sort((a, b) => by(a.texts[i], b.texts[i]));
      table.tBodies[0].append(...rows.map(({row}) => row));
    };
  });
  table.before(bar);
  narrow();
}
