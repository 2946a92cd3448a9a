// Makes elements, and the pictures of an opened combination: learning curves and errors by joint, as inline SVG.
"use strict";
window.report = {};
(() => {
  const SVG = "http://www.w3.org/2000/svg";

  // Makes an SVG element; its children are elements or texts.
  function svg(name, attributes, ...children) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

  // Returns about n round numbers between two numbers.
  function ticks(low, high, n) {
    const rough = (high - low) / n || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
    const found = [];
    for (let i = Math.ceil(low / step); i * step <= high + 1e-9; i++) found.push(+(i * step).toPrecision(6));
    return found;
  }

  // The lines of one kind: mean and band over finished repetitions up to the end of the shortest; others separately.
  function summed(series) {
    const length = Math.min(...series.map((values) => values.length));
    const points = { mean: [], low: [], high: [] };
    for (let i = 0; i < length; i++) {
      const values = series.map((one) => one[i]);
      const known = values.every((value) => value !== null);
      points.mean.push(known ? values.reduce((a, b) => a + b, 0) / values.length : null);
      points.low.push(known ? Math.min(...values) : null);
      points.high.push(known ? Math.max(...values) : null);
    }
    return points;
  }

  // The learning curves of a combination. `curves` has for each repetition null or [grid, validation, training].
  function learningCurves(combination, grids, name) {
    const [width, height, left, right, top, bottom] = [520, 280, 52, 12, 12, 42];
    const kinds = [["validation", 1], ["training", 2]];
    const known = combination.curves.flatMap((curve, i) => (curve ? [{ curve, trial: combination.trials[i] }] : []));
    const finished = known.filter(({ trial }) => trial[0] === "finished");
    const grid = finished.length && finished.every(({ curve }) => curve[0] === finished[0].curve[0])
      ? grids[finished[0].curve[0]] : null;
    const all = known.flatMap(({ curve }) => [...curve[1], ...curve[2]]).filter((value) => value !== null);
    if (!all.length) return null;
    const reference = combination.before === null ? [] : [combination.before];
    // A training that diverges must not flatten the others.
    const ordered = [...all].sort((a, b) => a - b);
    const ceiling = 3 * ordered[Math.floor(ordered.length / 2)];
    const low = Math.min(...ordered.slice(0, 1), ...reference);
    const high = Math.max(...ordered.filter((value) => value <= ceiling).slice(-1), ...reference);
    const margin = (high - low) * 0.06 || 1;
    const last = Math.max(...known.map(({ curve }) => grids[curve[0]].at(-1)));
    const x = (epoch) => left + (epoch / last) * (width - left - right);
    const y = (mm) => {
      const share = (Math.min(mm, ceiling) - low + margin) / (high - low + 2 * margin);
      return height - bottom - share * (height - top - bottom);
    };
    const places = (epochs, values) =>
      epochs.flatMap((epoch, i) => (values[i] === null || values[i] === undefined ? [] : [[x(epoch), y(values[i])]]));

    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", class: "chart" });
    for (const mm of ticks(low - margin, high + margin, 5)) {
      picture.append(svg("path", { class: "grid", d: path([[left, y(mm)], [width - right, y(mm)]]) }));
      picture.append(svg("text", { x: left - 6, y: y(mm) + 4, "text-anchor": "end" }, `${mm}`));
    }
    for (const epoch of ticks(0, last, 8)) {
      picture.append(svg("text", { x: x(epoch), y: height - bottom + 18, "text-anchor": "middle" }, `${epoch}`));
    }
    picture.append(svg("text", { x: (left + width) / 2, y: height - 6, "text-anchor": "middle" }, "epochs"));
    picture.append(svg("text", {
      transform: `translate(14 ${(height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle",
    }, "mean distance, mm"));
    if (reference.length) {
      const level = y(combination.before);
      picture.append(svg("path", { class: "backbone", d: path([[left, level], [width - right, level]]) }));
      picture.append(svg("text", { x: width - right, y: level - 5, "text-anchor": "end" }, "backbone"));
    }
    const said = [];
    for (const [kind, place] of [...kinds].reverse()) {
      if (grid) {
        const { mean, low: lows, high: highs } = summed(finished.map(({ curve }) => curve[place]));
        const lower = places(grid, lows).reverse();
        if (finished.length > 1 && lower.length) {
          picture.append(svg("path", { class: `band ${kind}`, d: `${path([...places(grid, highs), ...lower])}Z` }));
        }
        picture.append(svg("path", { class: `line ${kind}`, d: path(places(grid, mean)) }));
        const ends = mean.filter((value) => value !== null);
        if (ends.length) said.push(`${kind} from ${ends[0].toFixed(2)} to ${ends.at(-1).toFixed(2)} mm`);
      }
      for (const { curve, trial } of known) {
        if (grid && trial[0] === "finished") continue;
        picture.append(svg("path", { class: `line alone ${kind}`, d: path(places(grids[curve[0]], curve[place])) }));
      }
    }
    picture.prepend(svg("title", {}, `Learning curves of ${name}: ${said.reverse().join("; ") || "unfinished trials"}.`));
    const alone = grid ? known.length - finished.length : known.length;
    const mean = `Mean${finished.length > 1 ? " and range" : ""} of finished repetitions (n = ${finished.length})`;
    const note = grid ? mean : "Each repetition separately";
    const notes = [note];
    if (grid && alone) notes.push(`thin: ${alone} that did not finish`);
    if (ordered.at(-1) > ceiling) notes.push(`values above ${ceiling.toFixed(0)} mm are drawn at the edge`);
    return { picture, note: notes.join(", ") };
  }

  // The errors of joints and fingers, before and after.
  function partErrors(parts, before, after, name) {
    const [width, row, left, right, top] = [520, 17, 92, 56, 22];
    const height = top + row * parts.length + 8;
    const high = Math.max(...before, ...after) * 1.04;
    const x = (mm) => left + (mm / high) * (width - left - right);
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", class: "chart" });
    picture.append(svg("title", {}, `Errors of fingers and joints of ${name}, before and after; the table below has the numbers.`));
    for (const mm of ticks(0, high, 6)) {
      picture.append(svg("path", { class: "grid", d: path([[x(mm), top - 4], [x(mm), height - 4]]) }));
      picture.append(svg("text", { x: x(mm), y: 12, "text-anchor": "middle" }, `${mm}${mm ? "" : " mm"}`));
    }
    parts.forEach((part, i) => {
      const y = top + row * (i + 0.5);
      picture.append(svg("text", { x: left - 8, y: y + 4, "text-anchor": "end" }, part));
      picture.append(svg("path", { class: "change", d: path([[x(before[i]), y], [x(after[i]), y]]) }));
      picture.append(svg("circle", { class: "before", cx: x(before[i]), cy: y, r: 4 }));
      picture.append(svg("circle", { class: "after", cx: x(after[i]), cy: y, r: 4 }));
      const change = after[i] - before[i];
      picture.append(svg("text", { x: width - 4, y: y + 4, "text-anchor": "end" },
        `${change > 0 ? "+" : change < 0 ? "−" : ""}${Math.abs(change).toFixed(2)}`));
    });
    return picture;
  }

  // Makes an HTML element; its children are elements or texts.
  function element(name, attributes, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === true) made.setAttribute(key, "");
      else if (value !== false && value !== null) made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
  }

  Object.assign(window.report, { svg, element, ticks, learningCurves, partErrors });
})();
