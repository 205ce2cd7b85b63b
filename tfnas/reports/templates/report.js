"use strict";
// Looks at files in the plots, compares two, hides those beyond a limit, and sorts tables.
// The page holds all that it says without this script too.
(() => {
  const make = (tag, text = "", kind = "") => {
    const node = document.createElement(tag);
    node.textContent = text;
    if (kind) node.className = kind;
    return node;
  };
  const all = (parent, selector) => [...parent.querySelectorAll(selector)];

  for (const chart of all(document, ".chart")) {
    const items = all(chart, ".item").map((node) => ({
      name: node.dataset.name,
      values: node.dataset.values.split(" ").map(Number),
      texts: node.dataset.texts.split("|"),
      shown: true,
    }));
    const inputs = all(chart, "input[data-field]");
    const fields = inputs.map((input) => input.parentNode.textContent.trim().replace(/ at (least|most)$/, ""));
    const marks = all(chart, ".mark");
    const [tip] = all(chart, ".tip");
    const [comparison] = all(chart, ".comparison");
    // Lines of the same files in other drawings of the page.
    const twins = (item) => all(document, `[data-item="${item}"]`);
    let selected = [];

    const look = (mark) => {
      const item = items[mark.dataset.item];
      tip.replaceChildren(make("strong", item.name));
      fields.forEach((field, i) => {
        if (item.texts[i]) tip.append(make("div", `${field}: ${item.texts[i]}`));
      });
      tip.hidden = false;
      const box = chart.getBoundingClientRect();
      const at = mark.querySelector(".shape").getBoundingClientRect();
      const most = box.width - tip.offsetWidth;
      const middle = (at.left + at.right) / 2 - box.left;
      const above = at.top - box.top - tip.offsetHeight - 6;
      const overlapsTop = at.top - tip.offsetHeight - 6 < 0;
      tip.style.left = `${Math.max(0, Math.min(most, middle - tip.offsetWidth / 2))}px`;
      tip.style.top = `${overlapsTop ? at.bottom - box.top + 6 : above}px`;
      for (const twin of twins(mark.dataset.item)) twin.classList.add("hot");
    };
    const away = (mark) => {
      tip.hidden = true;
      for (const twin of twins(mark.dataset.item)) twin.classList.remove("hot");
    };

    const change = (field, one, two) => {
      if (!Number.isFinite(one) || !Number.isFinite(two)) return "";
      if (field === 0) return `${two >= one ? "+" : ""}${Number((two - one).toPrecision(3))}`;
      return one ? `${(two / one).toPrecision(3)} times` : "";
    };
    const compare = () => {
      for (const mark of marks) {
        const chosen = selected.includes(mark.dataset.item);
        mark.classList.toggle("selected", chosen);
        mark.setAttribute("aria-pressed", chosen);
      }
      comparison.hidden = false;
      if (selected.length < 2) {
        const first = selected.length ? `${items[selected[0]].name} is selected. ` : "";
        const hint = selected.length ? "Select another file to compare them." : "Select two files, by a click or by Enter, to compare them.";
        comparison.replaceChildren(make("p", first + hint));
        return;
      }
      const [one, two] = selected.map((item) => items[item]);
      const table = make("table");
      const row = (cells, tag) => {
        const line = make("tr");
        cells.forEach((cell, i) => line.append(make(i ? tag : "th", cell, i ? "right" : "left")));
        table.append(line);
      };
      row(["compared", one.name, two.name, "the second to the first"], "th");
      fields.forEach((field, i) => {
        row([field, one.texts[i], two.texts[i], change(i, one.values[i], two.values[i])], "td");
      });
      const wide = make("div", "", "wide");
      wide.tabIndex = 0;
      wide.append(table);
      comparison.replaceChildren(wide);
    };
    const select = (item) => {
      const others = selected.filter((each) => each !== item);
      selected = others.length < selected.length ? others : [...others, item].slice(-2);
      compare();
    };

    const filter = () => {
      items.forEach((item) => {
        item.shown = inputs.every((input) => {
          const value = item.values[input.dataset.field];
          if (input.value === "" || Number.isNaN(value)) return true;
          return input.dataset.least === "yes" ? value >= input.value : value <= input.value;
        });
      });
      items.forEach((item, i) => {
        for (const twin of twins(i)) twin.classList.toggle("off", !item.shown);
      });
      const count = items.filter((item) => item.shown).length;
      chart.querySelector("output").textContent = `${count} of ${items.length} files`;
    };
    for (const input of inputs) input.addEventListener("input", filter);
    chart.querySelector(".controls button").addEventListener("click", () => {
      for (const input of inputs) input.value = "";
      filter();
    });

    // One stop of the Tab key a panel; arrows go from file to file, from left to right.
    for (const panel of all(chart, ".panel svg")) {
      const across = (mark) => mark.transform.baseVal.getItem(0).matrix.e;
      const ordered = all(panel, ".mark").sort((a, b) => across(a) - across(b));
      ordered.forEach((mark, i) => {
        mark.querySelector("title").remove();
        const item = items[mark.dataset.item];
        mark.setAttribute("role", "button");
        mark.setAttribute("aria-label", `${item.name}: ${fields.map((f, n) => `${f} ${item.texts[n]}`).filter((_, n) => item.texts[n]).join(", ")}`);
        mark.setAttribute("tabindex", i ? -1 : 0);
        mark.addEventListener("pointerenter", () => look(mark));
        mark.addEventListener("pointerleave", () => away(mark));
        mark.addEventListener("focus", () => look(mark));
        mark.addEventListener("blur", () => away(mark));
        mark.addEventListener("click", () => select(mark.dataset.item));
      });
      panel.addEventListener("keydown", (event) => {
        const shown = ordered.filter((mark) => items[mark.dataset.item].shown);
        const at = shown.indexOf(event.target);
        const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
        if (at < 0) return;
        if (event.key === "Enter" || event.key === " ") select(event.target.dataset.item);
        else if (event.key === "Escape") away(event.target);
        else if (step) {
          const next = shown[(at + step + shown.length) % shown.length];
          for (const mark of ordered) mark.setAttribute("tabindex", mark === next ? 0 : -1);
          next.focus();
        } else return;
        event.preventDefault();
      });
    }
    chart.querySelector(".controls").hidden = false;
    filter();
    compare();
  }

  // Tables are sorted by a click on a title: numbers by size, all else as text.
  const NUMBER = /^\[?[+-]?\d[\d,]*\.?\d*(e[+-]?\d+)?(?=x?%?($|[\s,\]]))/i;
  const numberOf = (text) => {
    const found = text.replace("[", "").match(NUMBER);
    return found ? Number(found[0].replaceAll(",", "")) : NaN;
  };
  for (const table of all(document, ".wide > table")) {
    const titles = all(table, "thead th");
    const [body] = all(table, "tbody");
    if (!body || body.rows.length < 2) continue;
    titles.forEach((title, column) => {
      const button = make("button", title.textContent);
      button.type = "button";
      title.replaceChildren(button);
      button.addEventListener("click", () => {
        const up = title.getAttribute("aria-sort") !== "ascending";
        for (const each of titles) each.removeAttribute("aria-sort");
        title.setAttribute("aria-sort", up ? "ascending" : "descending");
        const text = (row) => row.cells[column].textContent.trim();
        const filled = [...body.rows].filter(text);
        const numeric = filled.every((row) => !Number.isNaN(numberOf(text(row))));
        const order = (a, b) => numeric ? numberOf(text(a)) - numberOf(text(b)) : text(a).localeCompare(text(b), "en", { numeric: true });
        filled.sort((a, b) => (up ? 1 : -1) * order(a, b));
        const empty = [...body.rows].filter((row) => !text(row));
        body.append(...filled, ...empty);
      });
    });
  }
})();
