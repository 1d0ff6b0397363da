// Formulas. What cannot be set stays readable as TeX. A full stop must not wander to the next line: it joins the formula's last box.
document.addEventListener("DOMContentLoaded", () => {
  for (const formula of document.querySelectorAll(".math[data-tex]")) {
    katex.render(formula.textContent, formula, {displayMode: formula.dataset.tex === "display", throwOnError: false, strict: false});
    const next = formula.nextSibling, mark = next && next.nodeType === 3 && next.data.match(/^[.,;:!?)\u2019\u201d]+/);
    const box = mark && [...formula.querySelectorAll(".katex-html > span")].pop(); // its class differs between versions of KaTeX
    if (!box) continue;
    const span = document.createElement("span");
    span.className = "after-math";
    span.textContent = mark[0];
    box.append(span);
    next.data = next.data.slice(mark[0].length);
  }
});
