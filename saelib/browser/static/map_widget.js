/* The map in a notebook (after map.js): the kernel's side is maps.PointMap. */
export default {
  render({ model, el }) {
    el.classList.add("sae-map");
    const draw = () => {
      if (el.map || !model.get("data").ids) return;
      const map = el.map = pointMap(el, model.get("data"), {
        pick: id => model.send({ pick: id }),
        lasso: model.get("lasso") ? ids => model.send({ lasso: ids }) : null,
      });
      const follow = () => {
        map.select(model.get("chosen"));
        map.found(model.get("found"));
        map.fence(model.get("within"));
      };
      const values = () => {
        const [name, places, numbers] = model.get("values"), all = new Array(model.get("data").ids.length).fill(0);
        places.forEach((at, i) => { all[at] = numbers[i]; });
        map.values(name, all);
      };
      for (const name of ["chosen", "found", "within"]) model.on("change:" + name, follow);
      if (model.get("values").length) values();
      model.on("change:values", values);
      follow();
    };
    model.on("change:data", draw);
    draw();
    if (!el.map) requestAnimationFrame(() => setTimeout(() => model.send({ ready: true }), 0));  // after the first paint
    return () => el.map?.close();
  },
};
