/* The map in a notebook (after map.js): the kernel's side is maps.PointMap. */
export default {
  render({ model, el }) {
    const map = pointMap(el, model.get("data"), {
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
    el.map = map;
    return () => map.close();
  },
};
