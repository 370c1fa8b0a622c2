// The claims: the filter of their index, buttons that copy, and the lines of a graph.
"use strict";

(() => {
  const FIELDS = ["paper", "theorem", "model", "kind", "verdict", "hypothesis"];
  const SHORT = { hyp: "hypothesis", hypotheses: "hypothesis", statement: "theorem" };
  const TERM = /(-?)(?:([a-z]+):\s*)?((?:"[^"]*"|“[^”]*”|[^\s",“]|,)+)/gi;

  const plain = (text) => text.normalize("NFKC").toLowerCase().replace(/\s+/g, " ")
    .replace(/ ?([=<>≤≥]) ?/g, "$1").trim();

  // "paper:nora,riemannian -kind:value kappa" as a list of terms.
  function parsed(query) {
    const terms = [];
    for (const [whole, minus, name, rest] of query.matchAll(TERM)) {
      const field = SHORT[(name || "").toLowerCase()] || (name || "").toLowerCase();
      const known = FIELDS.includes(field);
      const text = known ? rest : whole.slice(minus.length);
      const words = (text.match(/(?:"[^"]*"|“[^”]*”|[^,])+/g) || []).map((word) =>
        plain(word.replace(/["“”]/g, "")));
      terms.push({ field: known ? field : "text", not: minus === "-", whole,
        words: known ? words.filter(Boolean) : [plain(text.replace(/["“”]/g, ""))] });
    }
    return terms;
  }

  // A number has to stand alone: 3.2 is not in 13.2.
  function holds(text, word) {
    if (!/^\d/.test(word)) return text.includes(word);
    const escaped = word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    return new RegExp(`(^|[^\\d.])${escaped}($|\\D)`).test(text);
  }

  // Of what stands in a short list a beginning is enough, and a whole name means that one.
  function isOne(text, word, all) {
    const name = word.replace(/ /g, "-");
    return all.has(name) ? text === name : text.startsWith(name);
  }

  function matches(row, terms, lists) {
    return terms.every(({ field, not, words }) => {
      if (!words.length) return true;
      const found = words.some((word) =>
        field in lists ? isOne(row[field], word, lists[field]) : holds(row[field], word));
      return found !== not;
    });
  }

  const quoted = (word) => (/[\s,]/.test(word) ? `"${word}"` : word);

  // The query with the values of one field replaced by others.
  function replaced(query, field, values) {
    const kept = parsed(query).filter((term) => term.field !== field || term.not)
      .map((term) => term.whole);
    if (values.length) kept.push(`${field}:${values.map(quoted).join(",")}`);
    return kept.join(" ");
  }

  function explorer(list) {
    const field = document.getElementById("query");
    const count = document.getElementById("found");
    const none = document.getElementById("none");
    const facets = document.querySelector(".facets");
    const boxes = [...facets.querySelectorAll("input")];
    const choices = [...facets.querySelectorAll("select")];
    const rows = [...list.children].map((item) => ({ item, ...item.dataset }));
    const lists = Object.fromEntries(["paper", "verdict", "kind", "model"].map((name) =>
      [name, new Set(rows.map((row) => row[name]))]));

    function show() {
      const terms = parsed(field.value);
      let shown = 0;
      for (const row of rows) {
        const fits = matches(row, terms, lists);
        row.item.hidden = !fits;
        shown += fits;
      }
      count.textContent = shown === rows.length
        ? `${rows.length} claims` : `${shown} of ${rows.length} claims`;
      none.hidden = shown > 0;
      const asked = (name) => terms.filter((term) => term.field === name && !term.not)
        .flatMap((term) => term.words);
      for (const box of boxes) box.checked = asked(box.name).includes(box.value);
      for (const choice of choices) {
        const value = [...choice.options].find((option) =>
          option.value && asked(choice.name).includes(plain(option.value)));
        choice.value = value ? value.value : "";
      }
    }

    function changed() {
      show();
      const query = field.value.trim();
      history.replaceState(null, "", `#q=${encodeURIComponent(query)}`);
    }

    // Links to the index say ?q=; what is typed goes behind #, which needs no server.
    function fromAddress() {
      const [first] = [location.hash, location.search].filter((part) => /^[#?]q=/.test(part));
      const query = new URLSearchParams(first?.slice(1)).get("q") || "";
      if (query !== field.value.trim()) field.value = query;
      show();
    }

    field.addEventListener("input", changed);
    document.getElementById("search").addEventListener("submit", (event) => {
      event.preventDefault();
      changed();
    });
    document.getElementById("clear").addEventListener("click", () => {
      field.value = "";
      changed();
      field.focus();
    });
    facets.addEventListener("change", ({ target }) => {
      const values = target.type === "checkbox"
        ? boxes.filter((box) => box.name === target.name && box.checked).map((box) => box.value)
        : [target.value].filter(Boolean);
      field.value = replaced(field.value, target.name, values);
      changed();
    });
    window.addEventListener("hashchange", fromAddress);
    document.getElementById("search").hidden = false;
    facets.hidden = false;
    facets.open = matchMedia("(min-width: 40em)").matches;
    fromAddress();
  }

  function copying(button) {
    const code = button.parentElement.querySelector("code");
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }

  // The lines of the row that is pointed at, or that has the focus.
  function lines(graph) {
    const joins = [...graph.querySelectorAll(".join")];
    const light = ({ target }) => {
      const id = target.closest("a")?.dataset.id;
      graph.classList.toggle("some", Boolean(id));
      for (const join of joins) {
        join.classList.toggle("lit", Boolean(id) && (join.dataset.from === id || join.dataset.to === id));
      }
    };
    for (const kind of ["mouseover", "focusin"]) graph.addEventListener(kind, light);
    for (const kind of ["mouseleave", "focusout"]) {
      graph.addEventListener(kind, () => light({ target: graph }));
    }
  }

  document.addEventListener("DOMContentLoaded", () => {
    const list = document.getElementById("claim-list");
    if (list) explorer(list);
    document.querySelectorAll("button.copy").forEach(copying);
    document.querySelectorAll("svg.graph").forEach(lines);
  });
})();
