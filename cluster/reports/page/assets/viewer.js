// The examples in three dimensions: input, corrected pose and label, at each log point of the training. Drawn by three.js
// with WebGL, or as lines on a plain canvas without it.
"use strict";
(() => {
  const { element } = window.report;
  const KINDS = [["label", "--label", 1.5], ["input", "--before", 2.0], ["corrected", "--after", 2.5]]; // radii, mm
  const TURN = Math.PI / 24;
  const state = { example: 0, step: Infinity, yaw: 0.35, pitch: 0.15, zoom: 1, shown: { label: true, input: true, corrected: true } };
  let stop = () => {};

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const distance = (a, b) => a.reduce((sum, p, j) => sum + Math.hypot(...p.map((v, k) => v - b[j][k])), 0) / a.length / 100;

  // Draws hands as lit balls and sticks. Throws without WebGL.
  function solidPainter(canvas, bones, nJoints) {
    const renderer = new THREE.WebGLRenderer({ canvas, antialias: true, alpha: true });
    const scene = new THREE.Scene();
    const light = new THREE.DirectionalLight(0xffffff, 2.2);
    scene.add(new THREE.AmbientLight(0xffffff, 1.4), light);
    const ball = new THREE.SphereGeometry(1, 20, 14);
    const stick = new THREE.CylinderGeometry(1, 1, 1, 12, 1, true);
    const up = new THREE.Vector3(0, 1, 0);
    const hands = KINDS.map(([, , radius]) => {
      const material = new THREE.MeshLambertMaterial();
      const group = new THREE.Group();
      const joints = Array.from({ length: nJoints }, () => new THREE.Mesh(ball, material));
      const sticks = bones.map(() => new THREE.Mesh(stick, material));
      joints.forEach((joint) => joint.scale.setScalar(1.5 * radius));
      group.add(...joints, ...sticks);
      scene.add(group);
      return { material, group, joints, sticks, radius };
    });
    return {
      paint(poses, camera, width, height) {
        renderer.setPixelRatio(window.devicePixelRatio);
        renderer.setSize(width, height, false);
        light.position.copy(camera.position).add(new THREE.Vector3(60, 120, 0));
        hands.forEach(({ material, group, joints, sticks, radius }, kind) => {
          const pose = poses[kind];
          group.visible = pose !== null;
          if (!pose) return;
          material.color.set(colour(KINDS[kind][1]));
          pose.forEach((point, j) => joints[j].position.copy(point));
          bones.forEach(([a, b], i) => {
            const along = pose[b].clone().sub(pose[a]);
            sticks[i].position.copy(pose[a]).addScaledVector(along, 0.5);
            sticks[i].scale.set(radius, along.length(), radius);
            sticks[i].quaternion.setFromUnitVectors(up, along.normalize());
          });
        });
        renderer.render(scene, camera);
      },
      release() { renderer.dispose(); renderer.forceContextLoss(); },
    };
  }

  // Draws hands as lines, the farther ones first.
  function flatPainter(canvas, bones) {
    const context = canvas.getContext("2d");
    return {
      paint(poses, camera, width, height) {
        canvas.width = width * window.devicePixelRatio;
        canvas.height = height * window.devicePixelRatio;
        context.scale(window.devicePixelRatio, window.devicePixelRatio);
        const lines = poses.flatMap((pose, kind) => {
          if (!pose) return [];
          const seen = pose.map((point) => point.clone().project(camera));
          const place = ({ x, y }) => [((x + 1) / 2) * width, ((1 - y) / 2) * height];
          return bones.map(([a, b]) => ({ kind, from: place(seen[a]), to: place(seen[b]), depth: seen[a].z + seen[b].z }));
        });
        for (const { kind, from, to } of lines.sort((a, b) => b.depth - a.depth)) {
          context.strokeStyle = context.fillStyle = colour(KINDS[kind][1]);
          context.lineWidth = 1.2 * KINDS[kind][2];
          context.beginPath();
          context.moveTo(...from);
          context.lineTo(...to);
          context.stroke();
          for (const end of [from, to]) {
            context.beginPath();
            context.arc(...end, 1.5 * KINDS[kind][2], 0, 2 * Math.PI);
            context.fill();
          }
        }
      },
      release() {},
    };
  }

  function mountViewer() {
    stop();
    const block = document.getElementById("examples-data");
    if (!block) return;
    const data = JSON.parse(block.textContent);
    const nSteps = data.epochs.length;
    state.example = Math.min(state.example, data.indices.length - 1);
    state.step = Math.min(state.step, nSteps - 1);

    const canvas = element("canvas", {
      id: "viewer-canvas", tabindex: "0", role: "img", "aria-describedby": "viewer-keys", "aria-label": "Hand in three dimensions",
    });
    let painter;
    try {
      painter = solidPainter(canvas, data.bones, data.labels[0].length);
    } catch {
      painter = flatPainter(canvas, data.bones);
    }
    canvas.dataset.painter = canvas.getContext("2d") ? "flat" : "solid";
    const camera = new THREE.PerspectiveCamera(30, 1, 1, 5000);
    const reach = Math.max(...data.labels.flat(2).map(Math.abs)) / 100;

    const control = (name, attributes, ...children) => element(name, { id: `viewer-${attributes.id}`, ...rest(attributes) }, ...children);
    const rest = ({ id, ...others }) => others;
    const choice = control("select", { id: "example" }, ...data.indices.map((index, e) => element("option", { value: e }, `sample ${index}`)));
    const slider = control("input", { id: "step", type: "range", min: 0, max: nSteps - 1, step: 1 });
    const play = control("button", { id: "play", type: "button" }, "Play");
    const readout = control("output", { id: "readout", for: "viewer-step viewer-example" });
    const boxes = KINDS.map(([kind]) => control("input", { id: kind, type: "checkbox" }));
    const buttons = [["−", "Zoom out", () => zoom(1 / 1.2)], ["+", "Zoom in", () => zoom(1.2)],
      ["←", "Turn left", () => turn(-TURN, 0)], ["→", "Turn right", () => turn(TURN, 0)],
      ["↑", "Turn up", () => turn(0, TURN)], ["↓", "Turn down", () => turn(0, -TURN)], ["⟲", "Look from the front", reset]];
    const viewer = document.querySelector("#examples .viewer");
    viewer.replaceChildren(
      canvas,
      element("div", { class: "controls" },
        element("label", { for: "viewer-example" }, "Example ", choice),
        element("label", { for: "viewer-step" }, "Log point ", slider), play, readout),
      element("div", { class: "controls" },
        ...KINDS.map(([kind], i) => element("label", { for: `viewer-${kind}`, class: `swatch ${kind}` }, boxes[i], ` ${kind}`)),
        element("span", { class: "buttons" }, ...buttons.map(([sign, name, act]) => {
          const button = control("button", { id: name.toLowerCase().replaceAll(" ", "-"), type: "button", "aria-label": name, title: name }, sign);
          button.addEventListener("click", act);
          return button;
        }))),
      element("p", { id: "viewer-keys" }, "Drag or use the arrow keys to turn, the wheel or + and − to zoom."),
    );

    // A camera sees x to the right, y down and z ahead; here y is up and z comes out of the screen.
    const points = (pose) => pose.map(([x, y, z]) => new THREE.Vector3(x / 100, -y / 100, -z / 100));
    let frame = 0;
    function draw() {
      cancelAnimationFrame(frame);
      frame = requestAnimationFrame(() => {
        const [width, height] = [canvas.clientWidth, canvas.clientHeight];
        if (!width) return;
        camera.aspect = width / height;
        const far = (reach * 4.2) / state.zoom / Math.min(1, camera.aspect);
        camera.position.set(
          far * Math.sin(state.yaw) * Math.cos(state.pitch), far * Math.sin(state.pitch),
          far * Math.cos(state.yaw) * Math.cos(state.pitch));
        camera.lookAt(0, 0, 0);
        camera.updateProjectionMatrix();
        camera.updateMatrixWorld();
        const poses = { label: data.labels, input: data.inputs, corrected: data.predictions[state.step] };
        painter.paint(KINDS.map(([kind]) => (state.shown[kind] ? points(poses[kind][state.example]) : null)), camera, width, height);
      });
    }
    function update() {
      const [label, input, corrected] = [data.labels, data.inputs, data.predictions[state.step]].map((all) => all[state.example]);
      const text = `epoch ${data.epochs[state.step]}: ${distance(corrected, label).toFixed(2)} mm, input ${distance(input, label).toFixed(2)} mm`;
      readout.textContent = text;
      slider.value = state.step;
      slider.setAttribute("aria-valuetext", text);
      choice.value = state.example;
      boxes.forEach((box, i) => { box.checked = state.shown[KINDS[i][0]]; });
      canvas.setAttribute("aria-label", `Hand in three dimensions, sample ${data.indices[state.example]}, ${text}`);
      draw();
    }
    function turn(right, up) {
      state.yaw += right;
      state.pitch = Math.max(-1.5, Math.min(1.5, state.pitch + up));
      draw();
    }
    function zoom(factor) {
      state.zoom = Math.max(0.3, Math.min(6, state.zoom * factor));
      draw();
    }
    function reset() {
      Object.assign(state, { yaw: 0, pitch: 0, zoom: 1 });
      draw();
    }
    let playing = 0;
    function pause() {
      clearInterval(playing);
      playing = 0;
      play.textContent = "Play";
    }
    play.addEventListener("click", () => {
      if (playing) return pause();
      if (state.step === nSteps - 1) state.step = 0;
      update();
      play.textContent = "Pause";
      playing = setInterval(() => {
        state.step += 1;
        if (state.step >= nSteps - 1) { state.step = nSteps - 1; pause(); }
        update();
      }, Math.max(120, 3000 / nSteps));
    });
    slider.addEventListener("input", () => { pause(); state.step = +slider.value; update(); });
    choice.addEventListener("change", () => { state.example = +choice.value; update(); });
    boxes.forEach((box, i) => box.addEventListener("change", () => { state.shown[KINDS[i][0]] = box.checked; update(); }));
    const keys = { ArrowLeft: [-TURN, 0], ArrowRight: [TURN, 0], ArrowUp: [0, TURN], ArrowDown: [0, -TURN] };
    canvas.addEventListener("keydown", (event) => {
      if (keys[event.key]) turn(...keys[event.key]);
      else if (event.key === "+" || event.key === "=") zoom(1.2);
      else if (event.key === "-") zoom(1 / 1.2);
      else return;
      event.preventDefault();
    });
    canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
    canvas.addEventListener("pointermove", (event) => {
      if (canvas.hasPointerCapture(event.pointerId)) turn(-event.movementX * 0.01, event.movementY * 0.01);
    });
    canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom(event.deltaY < 0 ? 1.1 : 1 / 1.1); }, { passive: false });
    const observer = new ResizeObserver(draw);
    observer.observe(canvas);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", draw);
    stop = () => { pause(); observer.disconnect(); scheme.removeEventListener("change", draw); painter.release(); };
    window.report.view = state;
    update();
  }

  window.report.mountViewer = mountViewer;
})();
