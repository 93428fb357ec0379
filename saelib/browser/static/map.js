/* A map of points on a canvas, for the notebook and for the page: drag to move, wheel (or + and −) to zoom, click to
   pick, a lasso to choose. No library, no network; whatever it writes is text (textContent), never HTML.

   data: {noun, ids, x, y (0…1), r (px), labels, kinds: {domain: {group, looks: [{name, colour, path, sign, count, dim}]}, …},
          values: {name: [numbers]}, order (how points are drawn), named (whose names are written first)} */
const RAMP = ["#00204d", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"];

function pointMap(host, data, on) {
  const make = (tag, parent, text, cls) => {
    const e = parent.appendChild(document.createElement(tag));
    if (text) e.textContent = text;
    if (cls) e.className = cls;
    return e;
  };
  host.classList.add("sae-map");
  const tools = make("div", host, "", "sae-map-tools");
  const frame = make("div", host, "", "sae-map-frame");
  const canvas = make("canvas", frame), tip = make("div", frame, "", "sae-tip"), key = make("div", host, "", "sae-key");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `map of ${data.ids.length} ${data.noun}`);
  const n = data.ids.length, place = new Map(data.ids.map((id, i) => [id, i]));
  let view = { k: 1, x: 0, y: 0 }, chosen = -1, found = null, fence = null, by = [...Object.keys(data.kinds), ...Object.keys(data.values)][0];
  let names = true, lassoing = false, drag = null, shades = [], timer = 0, sprites = new Map(), W = 0, H = 0;
  const dots = document.createElement("canvas"), widths = [];  // the points as last drawn: choosing another one leaves them as they are
  let stale = true;

  // tools
  const select = make("select", make("label", tools, "colour by "));
  for (const name of [...Object.keys(data.kinds), ...Object.keys(data.values)]) make("option", select, name).value = name;
  select.parentNode.hidden = select.options.length < 2;
  select.onchange = () => colour(select.value);
  const check = (text, value, act) => {
    const box = document.createElement("input"), label = make("label", tools);
    box.type = "checkbox"; box.checked = value; label.append(box, " " + text);
    box.onchange = () => act(box.checked);
  };
  if (data.named.length) check("names", true, v => { names = v; draw(); });
  const button = (text, title, act) => {
    const b = make("button", tools, text);
    b.type = "button"; b.title = title; b.setAttribute("aria-label", title); b.onclick = () => act(b);
    return b;
  };
  const zoom = (by, x = W / 2, y = H / 2) => {
    const k = Math.min(Math.max(view.k * by, 0.8), 60), f = k / view.k;
    view = { k, x: x - (x - view.x) * f, y: y - (y - view.y) * f };
    draw(true);
  };
  button("+", "zoom in", () => zoom(1.5));
  button("−", "zoom out", () => zoom(1 / 1.5));
  button("⌂", "the whole map", () => { view = { k: 1, x: 0, y: 0 }; draw(); });
  const lasso = on.lasso && button("lasso", "draw round points to list them alone", b => press(!lassoing));
  const clear = on.lasso && button("clear lasso", "list all again", () => { fence = null; on.lasso(null); clear.disabled = true; draw(); });
  if (clear) clear.disabled = true;
  const press = v => { lassoing = v; lasso.setAttribute("aria-pressed", v); canvas.style.cursor = v ? "crosshair" : ""; };

  // colours
  const colour = name => {
    by = select.value = name;
    key.replaceChildren();
    if (data.kinds[name]) {
      shades = data.kinds[name].group;
      for (const look of data.kinds[name].looks) {
        const item = make("span", key, "", "sae-key-item");
        make("span", item, look.sign + " ").style.color = look.colour;
        make("bdi", item, look.name);
        make("span", item, " " + look.count.toLocaleString("en"), "dim");
      }
    } else {
      const v = data.values[name], known = v.filter(x => x !== null && x > -9), low = known.length ? known.reduce((a, b) => Math.min(a, b)) : 0;
      const high = known.length ? known.reduce((a, b) => Math.max(a, b)) : 1, span = high - low || 1;
      shades = v.map(x => x === null ? -1 : Math.max(0, Math.min(9, Math.floor(10 * (x - low) / span))));
      if (data.sparse) shades = v.map((x, i) => x > 0 ? shades[i] : -1);
      make("span", key, `${name} ${low.toFixed(2)} `);
      const bar = make("span", key, "", "sae-ramp");
      bar.style.background = `linear-gradient(90deg,${RAMP})`;
      make("span", key, ` ${high.toFixed(2)}`);
    }
    sprites.clear();
    draw();
  };

  // drawing
  const at = i => [view.x + view.k * (14 + data.x[i] * (W - 28)), view.y + view.k * (14 + (1 - data.y[i]) * (H - 28))];
  const grow = () => Math.min(Math.sqrt(view.k), 3);
  const sprite = (shade, r) => {
    const id = shade + "|" + r;
    if (!sprites.has(id)) {
      const s = document.createElement("canvas"), c = s.getContext("2d"), ratio = devicePixelRatio || 1, size = Math.ceil(2.6 * r + 2);
      s.width = s.height = size * ratio;
      c.scale(ratio, ratio); c.translate(size / 2, size / 2); c.scale(r, r);
      const look = data.kinds[by]?.looks[shade];
      c.fillStyle = look ? look.colour : shade < 0 ? "#999999" : RAMP[shade];
      const path = new Path2D(look ? look.path : "M-1 0a1 1 0 1 0 2 0a1 1 0 1 0-2 0");
      c.fill(path);
      c.strokeStyle = "#ffffff88"; c.lineWidth = 0.6 / r; c.stroke(path);
      sprites.set(id, [s, size]);
    }
    return sprites.get(id);
  };
  const points = (moving, ratio, g) => {
    const c = dots.getContext("2d");
    dots.width = canvas.width; dots.height = canvas.height;
    c.scale(ratio, ratio);
    const few = moving && n > 8000 ? 8000 : n, dimmed = [], lit = [];
    let drawn = 0;
    for (const i of data.order) {
      const [x, y] = at(i);
      if (x < -20 || y < -20 || x > W + 20 || y > H + 20) continue;
      (found && !found.has(data.ids[i]) || data.sparse && shades[i] < 0 || data.kinds[by]?.looks[shades[i]].dim ? dimmed : lit).push([i, x, y]);
      if (++drawn >= few) break;
    }
    for (const [group, alpha] of [[dimmed, 0.2], [lit, 0.85]]) {
      c.globalAlpha = alpha;
      for (const [i, x, y] of group) {
        const [s, size] = sprite(shades[i], Math.round(2 * data.r[i] * g) / 2);
        c.drawImage(s, x - size / 2, y - size / 2, size, size);
      }
    }
    stale = moving && few < n;
  };
  const paint = moving => {
    const c = canvas.getContext("2d"), ratio = devicePixelRatio || 1, g = grow();
    if (stale) points(moving, ratio, g);
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, W, H);
    c.drawImage(dots, 0, 0, W, H);
    if (fence && fence.length) {
      c.beginPath(); fence.forEach(([x, y], j) => c[j ? "lineTo" : "moveTo"](view.x + view.k * x, view.y + view.k * y)); c.closePath();
      c.strokeStyle = "#888"; c.setLineDash([5, 4]); c.lineWidth = 1.5; c.stroke(); c.setLineDash([]);
    }
    if (place.has(chosen)) {
      const i = place.get(chosen), [x, y] = at(i);
      c.beginPath(); c.arc(x, y, data.r[i] * g + 5, 0, 7); c.strokeStyle = "#D55E00"; c.lineWidth = 3; c.stroke();
    }
    if (names && !moving) write(c, g);
  };
  const write = (c, g) => {
    const style = getComputedStyle(host), taken = [];
    c.font = `12px ${style.fontFamily}`; c.textAlign = "center"; c.lineJoin = "round"; c.lineWidth = 4;
    c.fillStyle = style.color; c.strokeStyle = style.getPropertyValue("--paper").trim() || "#fff";
    const first = place.has(chosen) ? [place.get(chosen)] : [];
    const mine = [...first, ...data.named.filter(i => !found || found.has(data.ids[i]))];
    for (const i of mine) {
      let [x, y] = at(i);
      if (x < 0 || y < data.r[i] * g + 18 || x > W || y > H) continue;
      const text = data.labels[i].length > 30 ? data.labels[i].slice(0, 29) + "…" : data.labels[i];
      const w = (widths[i] ??= c.measureText(text).width) / 2 + 5;
      x = Math.min(Math.max(x, w), W - w); y -= data.r[i] * g + 5;
      if (taken.some(t => Math.abs(t[0] - x) < t[2] + w && Math.abs(t[1] - y) < 17)) continue;
      taken.push([x, y, w]);
      c.strokeText(text, x, y); c.fillText(text, x, y);
      if (taken.length > 60) break;
    }
    canvas.dataset.names = taken.length;
  };
  const draw = (moving, same) => {
    stale ||= !same;
    if (!W) return;
    clearTimeout(timer);
    cancelAnimationFrame(draw.frame);
    draw.frame = requestAnimationFrame(() => paint(moving));
    if (moving) timer = setTimeout(() => paint(false), 120);
  };

  // mouse, pen, finger
  const here = e => { const b = canvas.getBoundingClientRect(); return [e.clientX - b.left, e.clientY - b.top]; };
  const nearest = ([mx, my]) => {
    let best = -1, least = Infinity;
    for (let i = 0; i < n; i++) {
      const [x, y] = at(i), d = Math.hypot(x - mx, y - my) - data.r[i] * grow() - (found && !found.has(data.ids[i]) ? -4 : 0);
      if (d < 5 && d < least) { best = i; least = d; }
    }
    return best;
  };
  canvas.onpointerdown = e => {
    canvas.setPointerCapture(e.pointerId);
    const p = here(e);
    drag = { p, from: { ...view }, moved: false };
    if (lassoing) fence = [[(p[0] - view.x) / view.k, (p[1] - view.y) / view.k]];
  };
  canvas.onpointermove = e => {
    const p = here(e);
    if (drag) {
      drag.moved = drag.moved || Math.hypot(p[0] - drag.p[0], p[1] - drag.p[1]) > 4;
      if (lassoing) fence.push([(p[0] - view.x) / view.k, (p[1] - view.y) / view.k]);
      else if (drag.moved) view = { ...view, x: drag.from.x + p[0] - drag.p[0], y: drag.from.y + p[1] - drag.p[1] };
      tip.hidden = true;
      return draw(true);
    }
    const i = nearest(p);
    tip.hidden = i < 0;
    canvas.style.cursor = lassoing ? "crosshair" : i < 0 ? "" : "pointer";
    if (i < 0) return;
    const facts = Object.entries(data.values).filter(([, v]) => v[i] !== null).map(([name, v]) => `${name} ${v[i].toFixed(2)}`);
    const kinds = Object.values(data.kinds[by] ? { [by]: data.kinds[by] } : data.kinds).map(k => " · " + k.looks[k.group[i]].name);
    tip.textContent = `${data.ids[i]}: ${data.labels[i]}${kinds.join("")}\n${facts.join(" · ")}`;
    tip.style.left = Math.max(0, Math.min(p[0] + 12, W - tip.offsetWidth - 4)) + "px";
    tip.style.top = (p[1] + 16 + tip.offsetHeight > H ? p[1] - tip.offsetHeight - 10 : p[1] + 16) + "px";
  };
  canvas.onpointerup = e => {
    const was = drag;
    drag = null;
    if (!was) return;
    if (lassoing) {
      press(false);
      const inside = i => {
        const x = 14 + data.x[i] * (W - 28), y = 14 + (1 - data.y[i]) * (H - 28);
        let odd = false;
        for (let a = 0, b = fence.length - 1; a < fence.length; b = a++)
          if (fence[a][1] > y !== fence[b][1] > y && x < (fence[b][0] - fence[a][0]) * (y - fence[a][1]) / (fence[b][1] - fence[a][1]) + fence[a][0]) odd = !odd;
        return odd;
      };
      const ids = data.ids.filter((_, i) => inside(i));
      if (ids.length) { clear.disabled = false; on.lasso(ids); } else fence = null;
      return draw();
    }
    if (was.moved) return draw();
    canvas.tabIndex = 0; canvas.focus({ preventScroll: true });
    const i = nearest(was.p);
    if (i >= 0) on.pick(data.ids[i]);
  };
  canvas.onpointercancel = () => { drag = null; };
  canvas.onpointerleave = () => { tip.hidden = true; };
  canvas.addEventListener("wheel", e => {  // elsewhere the wheel scrolls the page: a map that was not clicked lets it
    if (!(e.ctrlKey || document.activeElement === canvas)) return;
    e.preventDefault(); e.stopPropagation();
    zoom(Math.exp(-e.deltaY / 400), ...here(e));
  }, { passive: false });
  tip.hidden = true;
  const fit = () => {
    const ratio = devicePixelRatio || 1;
    if (!frame.clientWidth) return;
    if (W) view = { ...view, x: view.x * frame.clientWidth / W, y: view.y * frame.clientHeight / H };
    W = frame.clientWidth; H = frame.clientHeight;
    canvas.width = W * ratio; canvas.height = H * ratio;
    draw();
  };
  const watch = new ResizeObserver(fit);
  watch.observe(frame);
  colour(by);
  fit();
  return {
    select(id) { chosen = id; draw(false, true); },
    found(ids) { found = ids === null ? null : new Set(ids); draw(); },
    fence(ids) { if (ids === null && fence) { fence = null; if (clear) clear.disabled = true; draw(); } },
    values(name, v) { data.values = { [name]: v }; colour(name); },
    colour, close() { watch.disconnect(); },
    state: () => ({ by, names: +canvas.dataset.names, found: found && found.size, fence: !!fence, view, at: id => at(place.get(id)) }),
  };
}
