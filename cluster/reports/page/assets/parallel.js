// Parallel coordinates: lines on a canvas, and on top of it axes on which the reader selects ranges. Axes are upright
// where there is room for them, and horizontal, one below the other, on a narrow screen.
"use strict";
(() => {
  const { svg, element, ticks, chosen, keep } = window.report;
  const SPACE = 104; // the width that an upright axis needs for its labels
  const [TOP, HEIGHT, ROW, EDGE] = [50, 300, 74, 16];
  const LABEL = 92; // to the right of the last upright axis: room for its title
  const CHARACTER = 6.8; // pixels
  const N_COLOURS = 24;
  const REACH = 14; // pixels around an end of a range within which a drag moves that end

  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  // The colours of lines from the best to the worst, and the colour of lines outside the ranges.
  function colours() {
    const style = getComputedStyle(document.documentElement);
    const parts = (name) => style.getPropertyValue(name).trim().match(/\w\w/g).map((hex) => parseInt(hex, 16));
    const [best, worst] = [parts("--after"), parts("--before")];
    const mixed = Array.from({ length: N_COLOURS }, (_, i) =>
      best.map((part, k) => Math.round(part + (worst[k] - part) * (i / (N_COLOURS - 1)))));
    return { lines: mixed.map((rgb) => `rgb(${rgb.join(" ")})`), others: style.getPropertyValue("--rule").trim() };
  }

  // An axis: its distinct values in order, the index of each combination's value (-1 for none), and the positions of the
  // values from 0 to 1. An axis of results also has limits.
  function axisOf(given, id) {
    const { name, results } = given;
    if (!results) {
      const { texts, values, places, log, ticks } = given;
      const scaled = values ? values.map((value) => (log ? Math.log10(value) : value)) : texts.map((_, i) => i);
      const positions = spread(scaled);
      // Lines with the same value run side by side, the best first.
      const gaps = positions.slice(1).map((position, i) => position - positions[i]);
      return {
        id, name, title: log ? `${name} (log)` : name, texts, keys: values ? values.map(String) : texts, values, places, positions, ticks,
        ribbon: 0.5 * Math.min(0.1, ...gaps),
      };
    }
    const values = [...new Set(results.filter((mm) => mm !== null))].sort((a, b) => a - b);
    const index = new Map(values.map((mm, i) => [mm, i]));
    // A training that failed to converge must not flatten the others.
    const ceiling = 3 * values[Math.floor(values.length / 2)];
    const scaled = values.map((mm) => Math.min(mm, ceiling));
    return {
      id, name, title: name, texts: values.map((mm) => mm.toFixed(2)), keys: values.map(String), values,
      places: results.map((mm) => (mm === null ? -1 : index.get(mm))), positions: spread(scaled), ribbon: 0, limits: [scaled[0], scaled.at(-1)],
    };
  }

  // The positions of ascending numbers, from 0 to 1.
  function spread(scaled) {
    const [low, high] = [scaled[0], scaled.at(-1)];
    return scaled.map((value) => (high > low ? (value - low) / (high - low) : 0.5));
  }

  // The first and last index of an axis's range; null without one, or if no value lies in it.
  function rangeOf(axis) {
    const ends = chosen.ranges[axis.id];
    if (!ends) return null;
    const [from, to] = ends.map((key) => axis.keys.indexOf(key));
    if (!axis.values) return from >= 0 && to >= from ? [from, to] : null;
    const [low, high] = ends.map(Number);
    const within = axis.values.flatMap((value, i) => (value >= low && value <= high ? [i] : []));
    return within.length ? [within[0], within.at(-1)] : null;
  }

  // The labelled values of an axis, as pairs of position and text.
  function labels(axis, most) {
    const { texts, positions, limits } = axis;
    if (axis.ticks) return axis.ticks;
    if (limits && limits[0] < limits[1]) {
      const [low, high] = limits;
      return ticks(low, high, Math.min(most, 6)).map((mm) => [(mm - low) / (high - low), `${mm}`]);
    }
    const step = Math.ceil(texts.length / most);
    return texts.flatMap((text, i) => (i % step ? [] : [[positions[i], text]]));
  }

  // Shows a plot in its element. Calls `moved` while a range is changing, and `changed` once it has changed.
  function mountPlot(holder, plot, number, isAlone, moved, changed) {
    const axes = plot.axes.map((given) => axisOf(given, isAlone ? given.name : `${number}.${given.name}`));
    const ranks = axes.find((axis) => axis.limits);
    const places = Array.from({ length: plot.n }, (_, i) => i);
    // The rank in validation, from 0 to 1.
    const rank = places.map((i) => (ranks.places[i] < 0 ? 1 : ranks.places[i] / ranks.values.length));
    const colourOf = rank.map((share) => Math.min(N_COLOURS - 1, Math.floor(share * N_COLOURS)));
    const canvas = element("canvas", { role: "img", "aria-label": `${plot.n} combinations as lines` });
    const overlay = svg("svg", { role: "group", "aria-label": `Axes of all combinations${plot.name ? ` on ${plot.name}` : ""}` });
    holder.replaceChildren(...(plot.name ? [element("p", {}, plot.name)] : []), element("div", {}, canvas, overlay));
    const box = holder.lastElementChild;
    let [width, height, isUpright, shown] = [0, 0, true, []];

    const space = () => (width - EDGE - LABEL) / (axes.length - 1);
    const along = (k) => (isUpright ? EDGE + k * space() : 40 + k * ROW);
    const across = (position) => (isUpright ? TOP + (1 - position) * HEIGHT : EDGE + position * (width - 2 * EDGE));
    const point = (k, position) => (isUpright ? [along(k), across(position)] : [across(position), along(k)]);

    function isSelected(i) {
      return shown.every(({ axis, range }) => !range || (axis.places[i] >= range[0] && axis.places[i] <= range[1]));
    }

    function draw() {
      const context = canvas.getContext("2d");
      const { lines, others } = colours();
      const selected = places.filter(isSelected);
      context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
      context.clearRect(0, 0, width, height);
      context.lineJoin = "round";
      const stroke = (of, colour, alpha) => {
        context.strokeStyle = colour;
        context.globalAlpha = alpha;
        context.beginPath();
        for (const i of of) {
          axes.flatMap((axis, k) => (axis.places[i] < 0 ? [] : [point(k, axis.positions[axis.places[i]] + (rank[i] - 0.5) * axis.ribbon)]))
            .forEach(([x, y], j) => (j ? context.lineTo(x, y) : context.moveTo(x, y)));
        }
        context.stroke();
      };
      context.lineWidth = 1;
      if (selected.length < plot.n) stroke(places.filter((i) => !isSelected(i)), others, 0.6);
      context.lineWidth = selected.length > 100 ? 1 : 1.6;
      const alpha = clamp(120 / selected.length, 0.3, 0.9);
      for (let colour = N_COLOURS - 1; colour >= 0; colour--) {
        stroke(selected.filter((i) => colourOf[i] === colour), lines[colour], alpha);
      }
    }

    // Shortens a text to fit into some pixels.
    const fitted = (text, room) => {
      const most = Math.max(3, Math.floor(room / CHARACTER));
      return text.length > most ? `${text.slice(0, most - 1)}…` : text;
    };

    function arrange() {
      width = box.clientWidth;
      isUpright = space() >= SPACE;
      height = isUpright ? TOP + HEIGHT + EDGE : ROW * axes.length;
      box.style.height = `${height}px`;
      [canvas.width, canvas.height] = [width * devicePixelRatio, height * devicePixelRatio];
      overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
      overlay.setAttribute("class", isUpright ? "upright" : "lying");
      const focused = document.activeElement?.id;
      shown = axes.map(arrangeAxis);
      overlay.replaceChildren(...shown.map(({ group }) => group));
      if (focused) overlay.querySelector(`#${CSS.escape(focused)}`)?.focus({ preventScroll: true });
      draw();
    }

    function arrangeAxis(axis, k) {
      const [start, end] = [point(k, 0), point(k, 1)];
      const group = svg("g", { "paint-order": "stroke" }); // texts have an outline in the colour of the page
      const strip = isUpright
        ? { x: along(k) - EDGE, y: TOP - EDGE, width: 3 * EDGE, height: HEIGHT + 2 * EDGE }
        : { x: 0, y: along(k) - 22, width, height: 44 };
      const longest = Math.max(...axis.texts.map((text) => text.length));
      const most = isUpright ? 14 : axis.values ? 5 : Math.max(2, Math.floor(width / (CHARACTER * longest + 10)));
      const texts = labels(axis, most).map(([position, text]) => {
        const [x, y] = point(k, position);
        const [room, at] = isUpright ? [k === axes.length - 1 ? LABEL : space() - 22, { x: x + 9, y: y + 4 }]
          : [width / Math.min(most, axis.texts.length) - 6, { x, y: y + 22, "text-anchor": position < 0.1 ? "start" : position > 0.9 ? "end" : "middle" }];
        return svg("text", at, svg("title", {}, text), fitted(text, room));
      });
      const title = svg("text", isUpright ? { x: along(k) - 10, y: 14, class: "name" } : { x: EDGE - 8, y: along(k) - 16, class: "name" });
      const bar = svg("path", { class: "range" });
      const handles = ["from", "to"].map((end) => svg("circle", {
        r: 6, class: "end", id: `end-${number}-${k}-${end}`, tabindex: 0, role: "slider", "aria-label": `${axis.name}, ${end}`,
        "aria-orientation": isUpright ? "vertical" : "horizontal", "aria-valuemin": 0, "aria-valuemax": axis.texts.length - 1,
      }));
      group.append(svg("path", { class: "axis", d: `M${start}L${end}` }), bar, ...texts, title, svg("rect", { ...strip, class: "strip" }), ...handles);
      const entry = { axis, group, range: null, update };

      function update() {
        entry.range = rangeOf(axis);
        const range = entry.range ?? [0, axis.texts.length - 1];
        const ends = range.map((i, which) => point(k, entry.range ? axis.positions[i] : which));
        bar.setAttribute("d", entry.range ? `M${ends[0]}L${ends[1]}` : "");
        handles.forEach((handle, which) => {
          handle.setAttribute("cx", ends[which][0]);
          handle.setAttribute("cy", ends[which][1]);
          handle.setAttribute("aria-valuenow", range[which]);
          handle.setAttribute("aria-valuetext", axis.texts[range[which]]);
        });
        group.classList.toggle("limited", entry.range !== null);
        const [from, to] = range.map((i) => axis.texts[i]);
        const within = from === to ? from : `${from} to ${to}`;
        const room = isUpright ? (k === axes.length - 1 ? LABEL + 10 : space() - 8) : width - EDGE;
        title.replaceChildren(...(isUpright
          ? [svg("tspan", {}, svg("title", {}, axis.title), fitted(axis.title, room)),
            ...(entry.range ? [svg("tspan", { class: "within", x: along(k) - 10, dy: 16 }, fitted(within, room))] : [])]
          : [fitted(axis.title, room), ...(entry.range ? [svg("tspan", { class: "within", dx: 8 }, fitted(within, room - CHARACTER * axis.title.length))] : [])]));
      }

      function choose(range) {
        if (range) chosen.ranges[axis.id] = range.map((i) => axis.keys[i]);
        else delete chosen.ranges[axis.id];
        update();
        draw();
        moved();
      }

      // The value that is nearest to the pointer.
      function nearest(event) {
        const bounds = overlay.getBoundingClientRect();
        const at = isUpright ? 1 - (event.clientY - bounds.top - TOP) / HEIGHT
          : (event.clientX - bounds.left - EDGE) / (width - 2 * EDGE);
        return axis.positions.reduce((best, position, i) => (Math.abs(position - at) < Math.abs(axis.positions[best] - at) ? i : best), 0);
      }

      group.addEventListener("pointerdown", (event) => {
        if (event.button) return;
        const before = entry.range;
        const bounds = overlay.getBoundingClientRect();
        const distances = handles.map((handle) => Math.hypot(
          event.clientX - bounds.left - handle.getAttribute("cx"), event.clientY - bounds.top - handle.getAttribute("cy")));
        const grabbed = distances.findIndex((distance) => distance < REACH && distance === Math.min(...distances));
        const ends = before ?? [0, axis.texts.length - 1];
        const first = grabbed < 0 ? nearest(event) : ends[1 - grabbed];
        let isDragged = false;
        const move = (next) => {
          isDragged ||= Math.hypot(next.clientX - event.clientX, next.clientY - event.clientY) > 4;
          if (isDragged) choose([first, nearest(next)].sort((a, b) => a - b));
        };
        const finish = (last) => {
          ["pointermove", "pointerup", "pointercancel"].forEach((kind, i) => group.removeEventListener(kind, [move, finish, finish][i]));
          if (last.type === "pointercancel") { choose(before); return; }
          if (!isDragged) {
            const at = nearest(event);
            choose(before && before[0] === at && before[1] === at ? null : [at, at]);
          }
          changed();
        };
        group.setPointerCapture(event.pointerId);
        group.addEventListener("pointermove", move);
        group.addEventListener("pointerup", finish);
        group.addEventListener("pointercancel", finish);
        event.preventDefault();
      });
      // A finger on an upright axis does not scroll the page; for horizontal axes, the style sets this.
      group.addEventListener("touchstart", (event) => { if (isUpright) event.preventDefault(); }, { passive: false });
      group.addEventListener("keydown", (event) => {
        const which = handles.indexOf(event.target);
        const last = axis.texts.length - 1;
        const far = Math.ceil(last / 10);
        const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: far, PageDown: -far, Home: -last, End: last };
        if (event.key === "Escape") choose(null);
        else if (event.key in steps) {
          const range = [...(entry.range ?? [0, last])];
          range[which] = which ? clamp(range[1] + steps[event.key], range[0], last) : clamp(range[0] + steps[event.key], 0, range[1]);
          choose(range[0] === 0 && range[1] === last ? null : range);
        } else return;
        event.preventDefault();
      });
      // While a key is held down, the table does not change.
      group.addEventListener("keyup", ({ key }) => { if (/^(Arrow|Page|Home|End|Escape)/.test(key)) changed(); });
      update();
      return entry;
    }

    new ResizeObserver(() => { if (box.clientWidth !== width) arrange(); }).observe(box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    arrange();
    return {
      isLimited: () => shown.some(({ range }) => range !== null),
      count: () => places.filter(isSelected).length,
      has: (place) => place >= plot.first && place < plot.first + plot.n && isSelected(place - plot.first),
      restore() {
        for (const entry of shown) entry.update();
        draw();
      },
    };
  }

  // Shows the plots. Calls `changed` when the reader has selected other ranges. Returns a function that says whether a
  // combination is selected: it lies within the ranges of a plot, or no plot has any.
  function mountAxes(changed) {
    const block = document.getElementById("axes-data");
    if (!block) return { isSelected: () => true, restore() {} };
    const given = JSON.parse(block.textContent);
    const figure = document.querySelector(".parallel");
    const plots = [];
    const n = given.reduce((sum, plot) => sum + plot.n, 0);
    const status = element("output", { id: "selected" });
    const clear = element("button", { type: "button", id: "all-ranges" }, "Remove all ranges");
    const limited = () => plots.filter((plot) => plot.isLimited());

    function isSelected(place) {
      const found = limited();
      return !found.length || found.some((plot) => plot.has(place));
    }

    function showStatus() {
      clear.disabled = !limited().length;
      const selected = (limited().length ? limited() : plots).reduce((sum, plot) => sum + plot.count(), 0);
      status.textContent = `${selected} of ${n} combinations selected`;
    }

    function finish() {
      keep(true);
      changed();
    }

    figure.querySelectorAll(".axes").forEach((holder, number) => {
      plots.push(mountPlot(holder, given[number], number + 1, given.length === 1, showStatus, finish));
    });
    clear.addEventListener("click", () => {
      chosen.ranges = {};
      restore();
      finish();
    });
    figure.querySelector(".bar").replaceChildren(clear, status);

    function restore() {
      for (const plot of plots) plot.restore();
      showStatus();
    }
    showStatus();
    return { isSelected, restore };
  }

  Object.assign(window.report, { mountAxes });
})();
