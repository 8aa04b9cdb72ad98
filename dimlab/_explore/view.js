// The view of `explore`: controls write the model's traits, and `shown` is drawn when it changes.

const PAGE = `
<style>
  .dimlab-explore { --kept: #0072b2; --removed: #d55e00; font-size: 14px; line-height: 1.5; }
  .dimlab-explore :is(label, summary) { margin: 0.3em 1em 0.3em 0; }
  .dimlab-explore .wide { display: block; width: 100%; box-sizing: border-box; }
  .dimlab-explore .strip { display: block; width: 100%; height: 64px; border: 1px solid #8884; }
  .dimlab-explore .alert { color: var(--removed); font-weight: 600; }
  .dimlab-explore .readings { margin: 0.4em 0; }
  .dimlab-explore .figures { display: flex; flex-wrap: wrap; gap: 1em 2em; }
  .dimlab-explore .figures > div { flex: 1 1 300px; max-width: 520px; }
  .dimlab-explore .classes { display: grid; grid-template-columns: auto 1fr auto; gap: 2px 8px; }
  .dimlab-explore .bar { position: relative; border-left: 1px solid #8884; }
  .dimlab-explore .bar i { position: absolute; top: 15%; height: 70%; }
  .dimlab-explore svg text { font-size: 12px; fill: currentColor; }
  .dimlab-explore .buttons { max-height: 9em; overflow-y: auto; }
  .dimlab-explore button { min-width: 4em; margin: 1px; padding: 3px 6px; }
  .dimlab-explore button[aria-pressed="true"] { background: var(--removed); color: white; }
  .dimlab-explore img { max-width: 100%; image-rendering: pixelated; }
</style>
<label>sort by <select name="order"></select></label>
<label><select name="largest_first" aria-label="direction">
  <option value="true">largest first</option><option value="false">smallest first</option>
</select></label>
<label class="wide">dimensions removed: <output></output>
  <input class="wide" type="range" name="n_removed" min="0"></label>
<div class="caption"></div>
<svg class="strip" preserveAspectRatio="none" role="img"></svg>
<div class="alert" role="alert"></div>
<div class="readings" aria-live="polite"></div>
<div class="figures">
  <div><b>Ridge within each class: accuracy, and its change from all dimensions</b><div class="classes"></div><div class="note"></div></div>
  <div><b>Spectrum of the test features</b><div class="spectrum"></div></div>
</div>
<details open><summary>Dimensions</summary>
  <label class="wide">also removed <input class="wide" name="also_removed"
    placeholder="dimensions and ranges, such as 3, 17, 40-60"></label>
  <label class="wide">kept anyway <input class="wide" name="kept_anyway"
    placeholder="dimensions and ranges, such as 3, 17, 40-60"></label>
  <div class="buttons"></div>
</details>
<details class="images"><summary>Images</summary>
  <label>dimension <input type="number" name="dimension" min="0"></label>
  <div class="tiles-text"></div><img class="tiles" alt="images of the largest activations">
</details>
<details><summary>Export</summary>
  <label class="wide">mask <textarea class="wide" name="mask" rows="3" readonly></textarea></label>
  <label class="wide">code <textarea class="wide" name="code" rows="16" readonly></textarea></label>
</details>`;

const CONTROLS = {
  // trait: the event that sets it, and how its value is read
  order: ["change", String],
  largest_first: ["change", (value) => value === "true"],
  n_removed: ["input", Number],
  also_removed: ["change", String],
  kept_anyway: ["change", String],
  dimension: ["change", Number],
};

const sum = (values) => values.reduce((total, value) => total + value, 0);
const escaped = (text) => new Option(text).innerHTML;

function readingOf(name, title, { accuracy, before, kind, rows }) {
  const sign = accuracy < before ? "−" : "+";
  const change = `${sign}${Math.abs(accuracy - before).toFixed(4)} from ${before?.toFixed(4)}`;
  return `<div><b>${title}</b>
    <data class="dimlab-${name}" value="${accuracy}">${accuracy.toFixed(4)}</data>
    ${before === null ? "" : `(${change})`} · <i class="dimlab-${name}-kind">${kind}</i>, ${rows}</div>`;
}

function rankOf({ rank, mask }) {
  const [now, before] = rank.map((value) => value?.toFixed(1) ?? "undefined");
  return `<div><b>effective rank</b> ${now} (all dimensions: ${before}) ·
    <b>kept</b> ${sum(mask)} of ${mask.length}</div>`;
}

function stripOf({ dimensions, scores, mask }) {
  const high = Math.max(0, ...scores);
  const low = Math.min(0, ...scores);
  const place = (score) => (64 * (high - score)) / (high - low || 1);
  const bar = (i) => `M${i} ${place(0)}h.8V${place(scores[i] ?? 0)}h-.8z`;
  const of = (kept) => scores.map((_, i) => (mask[dimensions[i]] === kept ? i : -1)).filter((i) => i >= 0);
  const behind = of(0).map((i) => `M${i} 0h1v64h-1z`);
  return `<path d="${behind.join("")}" fill="var(--removed)" opacity=".15"/>
    <path d="${of(1).map(bar).join("")}" fill="var(--kept)"/>
    <path d="${of(0).map(bar).join("")}" fill="var(--removed)"/>`;
}

function classesOf(classes) {
  const most = Math.max(0.02, ...classes.map(({ change }) => Math.abs(change)));
  return classes.map(({ name, accuracy, change }) => {
    const width = (50 * Math.abs(change)) / most;
    const colour = change < 0 ? "--removed" : "--kept";
    const left = change < 0 ? 50 - width : 50;
    return `<span>${escaped(name)}</span>
      <span class="bar"><i style="left:50%;width:1px;background:currentColor"></i>
      <i style="left:${left}%;width:${width}%;background:var(${colour})"></i></span>
      <span>${accuracy.toFixed(2)} (${change < 0 ? "−" : "+"}${Math.abs(change).toFixed(2)})</span>`;
  }).join("");
}

function ticksOf(low, high) {
  const steps = high < 100 * low ? [1, 2, 5] : [1];
  const decades = Array.from({ length: 80 }, (_, i) => 10 ** (i - 40));
  const ticks = decades.flatMap((ten) => steps.map((step) => step * ten));
  return ticks.filter((tick) => tick >= low && tick <= high);
}

function spectrumOf({ spectrum, spectrum_of_all, mask }) {
  const [all, kept] = [spectrum_of_all, spectrum].map((values) => values.filter((value) => value > 0));
  if (!all.length) return "All singular values are zero.";
  const [low, high] = [Math.min(...all, ...kept), Math.max(...all)];
  const x = (rank) => 46 + (306 * Math.log(rank)) / (Math.log(all.length) || 1);
  const y = (value) => 12 + (150 * Math.log(high / value)) / (Math.log(high / low) || 1);
  const line = (values, colour) =>
    `<polyline fill="none" stroke="${colour}" stroke-width="2"
      points="${values.map((value, i) => `${x(i + 1)},${y(value)}`).join(" ")}"/>`;
  const ranks = ticksOf(1, all.length).map(
    (tick) => `<text x="${x(tick)}" y="182" text-anchor="middle">${tick}</text>`);
  const values = ticksOf(low, high).map((tick) =>
    `<text x="40" y="${y(tick) + 4}" text-anchor="end">${Number(tick.toPrecision(1))}</text>`);
  return `<svg viewBox="0 0 360 200" width="100%" role="img" aria-label="singular values by rank">
    <path d="M46 8V166H356" fill="none" stroke="currentColor"/>
    ${line(all, "#999")}${line(kept, "var(--kept)")}${ranks.join("")}${values.join("")}
    <text x="200" y="198" text-anchor="middle">rank</text>
    <text x="56" y="140" style="fill:#888">all dimensions</text>
    <text x="56" y="156" style="fill:var(--kept)">the ${sum(mask)} kept</text></svg>`;
}

function render({ model, el }) {
  const root = document.createElement("div");
  root.className = "dimlab-explore";
  // a notebook would take the arrow keys for its own
  root.addEventListener("keydown", (event) => event.stopPropagation());
  root.innerHTML = PAGE;
  el.append(root);
  const find = (selector) => root.querySelector(selector);
  const n_dimensions = model.get("shown").mask.length;
  for (const name of model.get("orders")) find("[name=order]").append(new Option(name, name));
  for (const name of ["n_removed", "dimension"]) find(`[name=${name}]`).max = n_dimensions - 1;
  find(".images").hidden = !model.get("tiles");

  const listeners = [];
  const follow = (name, action) => {
    model.on(`change:${name}`, action);
    listeners.push([`change:${name}`, action]);
    action();
  };
  for (const [name, [event, read]] of Object.entries(CONTROLS)) {
    const control = find(`[name=${name}]`);
    control.addEventListener(event, () => {
      model.set(name, read(control.value));
      model.save_changes();
    });
    follow(name, () => { control.value = String(model.get(name)); });
  }
  const buttons = Array.from({ length: n_dimensions }, () => document.createElement("button"));
  find(".buttons").append(...buttons);
  for (const button of buttons) {
    button.type = "button";
    button.addEventListener("click", () => model.send({ toggle: Number(button.value) }));
  }
  follow("n_removed", () => { find("output").value = model.get("n_removed"); });
  follow("message", () => { find(".alert").textContent = model.get("message"); });
  follow("tiles", () => { find(".tiles").src = model.get("tiles"); });
  follow("tiles_text", () => { find(".tiles-text").textContent = model.get("tiles_text"); });
  follow("shown", () => {
    const shown = model.get("shown");
    find(".caption").innerHTML = `${escaped(shown.caption)};
      <span style="color:var(--kept)">blue: kept</span>,
      <span style="color:var(--removed)">orange: removed</span>`;
    find(".strip").setAttribute("viewBox", `0 0 ${n_dimensions} 64`);
    find(".strip").innerHTML = stripOf(shown);
    find(".readings").innerHTML = readingOf("ridge", "ridge accuracy", shown.ridge)
      + readingOf("knn", "kNN accuracy", shown.knn) + rankOf(shown);
    find(".classes").innerHTML = classesOf(shown.classes);
    const n_shown = shown.classes.length;
    find(".note").textContent = n_shown < shown.n_classes
      ? `The ${n_shown} of ${shown.n_classes} classes with the largest changes.` : "";
    find(".spectrum").innerHTML = spectrumOf(shown);
    find("[name=mask]").value = JSON.stringify(shown.mask);
    find("[name=code]").value = shown.code;
    buttons.forEach((button, i) => {
      const dimension = shown.dimensions[i];
      const removed = !shown.mask[dimension];
      button.value = dimension;
      button.textContent = removed ? `✕ ${dimension}` : dimension;
      button.title = `dimension ${dimension}: ${shown.scores[i]?.toPrecision(4) ?? "unknown"}`;
      button.setAttribute("aria-pressed", removed);
    });
  });
  return () => listeners.forEach(([name, action]) => model.off(name, action));
}

export default { render };
