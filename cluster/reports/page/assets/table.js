// The table of combinations: sorting, filtering, and opening one. `chosen` and `opened` keep what the reader did, so that
// a live page can replace the table.
"use strict";
(() => {
  const SHORTEST_KEY = 4; // characters that count as the beginning of a key

  const { chosen, keep, element } = window.report;
  const opened = new Set(); // keys
  let restore = () => {};

  const say = (text) => { document.getElementById("announcement").textContent = text; };

  const number = (mm) => (mm === null || mm === undefined ? "–" : mm.toFixed(2));

  // Makes the server's table sortable, filterable and openable, and restores what the reader did.
  function mountTable() {
    const section = document.getElementById("combinations");
    const table = section.querySelector("table.combinations");
    const data = JSON.parse(document.getElementById("combinations-data").textContent);
    const heads = [...table.tHead.rows[1].cells];
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row, place) => ({
      row,
      place,
      key: row.dataset.key,
      combination: data.combinations[place],
      cells: [...row.cells].map((cell) => cell.textContent),
      detail: null,
    }));
    const named = heads.map((head) => head.textContent);
    const firstResult = named.indexOf("n");
    // The searched text: the settings and the status of the trials. Ranks and measured numbers would match too often.
    for (const entry of rows) {
      const states = new Set(entry.combination.trials.map(([status]) => status));
      entry.text = [...entry.cells.slice(1, firstResult), ...states].join("\n").toLowerCase();
    }

    const axes = window.report.mountAxes(filter);

    function sort() {
      const column = Math.max(0, named.indexOf(chosen.sort));
      const sign = chosen.descending ? -1 : 1;
      const order = [...rows].sort((a, b) => compared(a.cells[column], b.cells[column], sign) || a.place - b.place);
      body.append(...order.flatMap(({ row, detail }) => (detail ? [row, detail] : [row])));
      heads.forEach((head, i) => {
        const direction = chosen.descending ? "descending" : "ascending";
        head.setAttribute("aria-sort", i === column ? direction : "none");
      });
    }

    function filter() {
      const words = chosen.search.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const { row, place, key, text, cells, detail } of rows) {
        const isOfKey = (word) => word.length >= SHORTEST_KEY && key.startsWith(word);
        const fits = words.every((word) => text.includes(word) || isOfKey(word)) &&
          Object.entries(chosen.values).every(([name, value]) => cells[named.indexOf(name)] === value) &&
          axes.isSelected(place);
        row.hidden = !fits;
        if (detail) detail.hidden = !fits;
        shown += fits;
      }
      document.getElementById("shown").textContent = `${shown} of ${rows.length} shown`;
    }

    function toggle(entry) {
      const button = entry.row.querySelector("button");
      if (entry.detail) {
        entry.detail.remove();
        entry.detail = null;
        opened.delete(entry.key);
      } else {
        entry.detail = detailOf(entry);
        entry.row.after(entry.detail);
        opened.add(entry.key);
      }
      button.setAttribute("aria-expanded", String(entry.detail !== null));
    }

    function detailOf({ key, combination, cells }) {
      const options = named.slice(1, firstResult).map((name, i) => `${name} ${cells[i + 1]}`).join(", ");
      const name = options || "the only combination";
      const left = element("div", {});
      const holder = element("div", { class: "detail" }, left);
      const curves = window.report.learningCurves(combination, data.grids, name);
      if (curves) {
        const thinned = data.thinning > 1 ? `; one in ${data.thinning} log points is shown` : "";
        left.append(element("figure", {}, curves.picture, element("figcaption", {},
          element("span", { class: "key validation" }, "validation"), ", ",
          element("span", { class: "key training" }, "training"), `. ${curves.note}${thinned}.`)));
      }
      if (combination.parts) {
        const [before, after] = [data.befores[combination.parts[0]], combination.parts[1]];
        const picture = window.report.partErrors(data.parts, before, after, name);
        const numbers = data.parts.map((part, i) => [part, number(before[i]), number(after[i])]);
        holder.append(element("figure", {}, picture, element("figcaption", {},
          element("span", { class: "key before" }, "before"), ", ", element("span", { class: "key after" }, "after"),
          `. Mean distance on the ${splitName(data.splits.at(-1))}, mean over finished ${data.deciding === null ? "" : "fresh "}repetitions.`),
          element("details", {}, element("summary", {}, "As a table"), grid(["part", "before, mm", "after, mm"], numbers))));
      }
      const isFresh = (repetition) => data.deciding !== null && repetition >= data.deciding;
      const trials = combination.trials.map(([status, seed, epoch, seconds, ...results], repetition) =>
        [`${repetition}${isFresh(repetition) ? " (fresh)" : ""}`, status, seed, `${epoch ?? "–"}`, ...results.map(number), seconds === null ? "–" : `${seconds} s`]);
      const titles = ["repetition", "status", "seed", "best epoch", ...data.splits.map((s) => `${splitName(s)}, mm`), "trained"];
      const table = element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Trials of ${name}` }, grid(titles, trials));
      const went = combination.trials.some(([status]) => status === "failed" || status === "diverged")
        ? [" Some failed or diverged: see ", element("a", { href: "#failures" }, "their errors"), "."] : [];
      left.append(table, element("p", {}, "Key: ", element("code", {}, key), ".", ...went));
      const cell = element("td", { colspan: heads.length }, holder);
      return element("tr", { class: "opened", id: `detail-${key}` }, cell);
    }

    heads.forEach((head, i) => {
      const button = element("button", { type: "button", id: `sort-${i}` });
      button.append(...head.childNodes, element("span", { class: "sign", "aria-hidden": "true" }));
      button.addEventListener("click", () => {
        chosen.descending = head.ariaSort === "ascending";
        chosen.sort = i ? named[i] : "";
        keep(true);
        sort();
        say(`Sorted by ${named[i]}, ${chosen.descending ? "descending" : "ascending"}`);
      });
      head.append(button);
    });
    for (const entry of rows) {
      const head = entry.row.cells[0];
      const button = element("button", {
        type: "button", id: `open-${entry.key}`, "aria-expanded": "false", "aria-label": `${head.textContent}, open`,
      }, head.textContent);
      head.replaceChildren(button);
      entry.row.addEventListener("click", () => toggle(entry));
    }
    const controls = section.querySelector(".tools");
    restore = () => {
      controls.replaceChildren(...tools(rows, named.slice(1, firstResult), filter));
      axes.restore();
      sort();
      filter();
    };
    for (const entry of rows) if (opened.has(entry.key)) toggle(entry);
    restore();
  }

  // The controls above the table: a search field and, for each option with few values, a choice.
  function tools(rows, names, filter) {
    const search = element("input", {
      type: "search", id: "filter", autocomplete: "off", placeholder: "settings, key or status",
    });
    search.value = chosen.search;
    let isTyping = false; // typing a word is one step for Back, not one for each letter
    search.addEventListener("input", () => {
      chosen.search = search.value;
      keep(!isTyping);
      isTyping = true;
      filter();
    });
    search.addEventListener("change", () => { isTyping = false; });
    const wanted = chosen.values; // an address may name values that the table does not have
    chosen.values = {};
    const choices = names.flatMap((name, i) => {
      const values = [...new Set(rows.map(({ cells }) => cells[i + 1]))].sort((a, b) => compared(a, b, 1));
      if (values.length > 40) return [];
      const select = element("select", { id: `choose-${i}` }, element("option", { value: "" }, "all"),
        ...values.map((value) => element("option", { value: `=${value}` }, value)));
      if (values.includes(wanted[name])) {
        chosen.values[name] = wanted[name];
        select.value = `=${wanted[name]}`;
      }
      select.addEventListener("change", () => {
        if (select.value) chosen.values[name] = select.value.slice(1);
        else delete chosen.values[name];
        keep(true);
        filter();
      });
      return [element("label", { for: `choose-${i}` }, name, " ", select)];
    });
    const shown = element("output", { id: "shown", for: "filter" });
    return [element("label", { for: "filter" }, "Search ", search), ...choices, shown];
  }

  function grid(titles, lines) {
    const head = element("tr", {}, ...titles.map((title) => element("th", { scope: "col" }, title)));
    const rows = lines.map(([first, ...others]) => element("tr", {},
      element("th", { scope: "row" }, first), ...others.map((text) => element("td", {}, text))));
    return element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
  }

  const splitName = (split) => ({ val: "validation set", test: "test set" })[split];

  // Numbers by size, then texts in alphabetical order; missing values last, in either direction.
  function compared(a, b, sign) {
    if ((a === "–") !== (b === "–")) return a === "–" ? 1 : -1;
    const [x, y] = [a, b].map((text) => parseFloat(text.replace("−", "-")));
    if (Number.isNaN(x) !== Number.isNaN(y)) return sign * (Number.isNaN(x) ? 1 : -1);
    return sign * (Number.isNaN(x) || x === y ? a.localeCompare(b) : x - y);
  }

  Object.assign(window.report, { mountTable, restoreTable: () => restore(), say });
})();
