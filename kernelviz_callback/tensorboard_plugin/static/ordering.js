import { grouped } from "./dom.js";
import { noiseOf } from "./matching.js";

const MOST_MATCHED = 1024; // filters: the time grows with the cube of their number

/**
 * The order of the tiles, and the pairs of filters of different runs. Both are computed at one step
 * and kept, so that no tile moves to another place while the slider moves.
 */
export class Ordering {
  constructor(model, onChange) {
    Object.assign(this, { model, onChange, key: "", orders: new Map(), partners: new Map(), alike: new Map(), chances: new Map(), step: null, why: null });
  }

  /** Compute order and pairs again if what they depend on has changed. */
  update() {
    const { view, lead, shown } = this.model;
    const key = JSON.stringify([shown.map((track) => [track.run, track.layer, track.shape]), view.order, view.match, view.ordered]);
    if (!lead || key === this.key) return;
    this.key = key;
    this.orders.clear();
    this.partners.clear();
    this.alike.clear();
    this.step = view.ordered ?? lead.entries.at(-1).step;
    this.why = this.whyNoMatch();
    this.find(key).catch(() => {
      if (this.key === key) this.key = ""; // a snapshot cannot be read now: try again when more arrive
    });
  }

  /** Compute order and pairs again, even if nothing has changed. */
  renew() {
    this.key = "";
    this.update();
  }

  whyNoMatch() {
    const [lead, ...others] = this.model.shown;
    if (!others.length) return "Choose a second run to match with.";
    const size = (track) => track.shape.slice(1).join(" × ");
    const other = others.find((track) => size(track) !== size(lead));
    if (other) return `Filters of ${size(lead)} and ${size(other)} weights cannot be matched.`;
    const most = Math.max(...this.model.shown.map((track) => track.shape[0]));
    return most > MOST_MATCHED ? `Up to ${grouped(MOST_MATCHED)} filters can be matched here; kernelviz compare matches more.` : null;
  }

  async find(key) {
    const { view, lead, shown } = this.model;
    const at = (track) => track.series.indexAt(this.step);
    const matches = view.match && !this.why;
    const needed = view.order === "index" && !matches ? [] : matches || view.order !== "index" ? shown : [];
    await Promise.all(needed.map((track) => track.series.require(at(track))));
    const partners = new Map(), alike = new Map();
    for (const track of matches ? shown.slice(1) : []) {
      const weights = (of) => of.series.weights(at(of));
      const { partner, mean } = await lead.responder.match(weights(lead), lead.shape, weights(track), track.shape);
      partners.set(track, partner);
      alike.set(track, { mean, chance: await this.chanceOf(lead, track) });
    }
    if (this.key !== key) return;
    Object.assign(this, { partners, alike });
    for (const track of shown) {
      const follows = track !== lead && (partners.has(track) || track.shape[0] === lead.shape[0]);
      const own = () => sortedFilters(track, at(track), view.order);
      this.orders.set(track, follows ? this.following(track) : own());
    }
    this.onChange();
  }

  /** The mean cosine of the pairs if all filters of two layers were noise. */
  async chanceOf({ responder, shape }, other) {
    const key = `${shape} ${other.shape}`;
    if (!this.chances.has(key)) {
      const { mean } = await responder.match(noiseOf(shape, 1), shape, noiseOf(other.shape, 2), other.shape);
      this.chances.set(key, mean);
    }
    return this.chances.get(key);
  }

  following(track) {
    const order = Array.from(this.orders.get(this.model.lead));
    const partner = this.partners.get(track);
    if (!partner) return order;
    const paired = order.map((filter) => partner[filter]).filter((filter) => filter >= 0);
    const used = new Set(paired);
    return paired.concat(Array.from({ length: track.shape[0] }, (_, k) => k).filter((filter) => !used.has(filter)));
  }

  /** The filters of a track in the order of their tiles. */
  of(track) {
    return this.orders.get(track) ?? Array.from({ length: track.shape[0] }, (_, k) => k);
  }

  /** The filter of the run `to` that corresponds to a filter of the run `from`; -1 without one. */
  counterpart(from, filter, to) {
    if (from === to) return filter;
    const { lead } = this.model;
    const ofLead = from === lead ? filter : this.partners.get(from)?.indexOf(filter) ?? filter;
    if (ofLead < 0 || to === lead) return ofLead < lead.shape[0] ? ofLead : -1;
    const partner = this.partners.get(to);
    if (partner) return partner[ofLead] ?? -1;
    return ofLead < to.shape[0] ? ofLead : -1;
  }

  isMatched(track, filter) {
    const partner = this.partners.get(track);
    if (partner) return partner.includes(filter);
    if (track !== this.model.lead || !this.partners.size) return true;
    return [...this.partners.values()].every((found) => found[filter] >= 0);
  }
}

function sortedFilters(track, index, order) {
  const filters = Array.from({ length: track.shape[0] }, (_, k) => k);
  if (order === "index") return filters;
  const { series } = track;
  if (order === "health") {
    const bits = series.bits(index);
    const gravity = (filter) => (bits[filter] ? 32 - Math.clz32(bits[filter] & -bits[filter]) : 99);
    return filters.sort((a, b) => gravity(a) - gravity(b) || a - b);
  }
  const values = order === "norm" ? series.norms(index) : series.changes(index);
  if (!values) throw new Error("not known yet");
  const ranked = (filter) => (Number.isNaN(values[filter]) ? -Infinity : values[filter]);
  return filters.sort((a, b) => ranked(b) - ranked(a) || a - b);
}
