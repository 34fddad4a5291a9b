//! Where the organs of the thorax lie, and what they are made of.
//!
//! The origin is the middle of the chest at the level of the hila. Lengths in mm, values in HU.

use super::paint::Paint;
use super::shapes::{Point, blend, ellipsoid, point, ramp, smooth, superellipse, tube};
use super::texture::Texture;
use crate::tensor::random::Noise;

/// Blood with contrast agent.
pub(super) const BLOOD: f64 = 190.0;
const MUSCLE: f64 = 55.0;
const FAT: f64 = -100.0;
const CORTEX: f64 = 780.0;
const AIR: f64 = -1000.0;

/// Distance between vertebrae, and between ribs.
const LEVEL: f64 = 25.0;

type Path = Vec<(Point, f64)>;

/// One patient.
#[derive(Debug)]
pub(super) struct Anatomy {
    pub texture: Texture,
    /// Size relative to the average patient.
    size: f64,
    /// Thickness of the fat under the skin.
    fat: f64,
    heart: f64,
    arteries: Vec<Path>,
    veins: Vec<Path>,
    airways: Vec<Path>,
}

fn path(points: &[(f64, f64, f64, f64)]) -> Path {
    smooth(&points.iter().map(|&(x, y, z, radius)| (point(x, y, z), radius)).collect::<Vec<_>>())
}

fn nearest(paths: &[Path], p: Point) -> f64 {
    paths.iter().map(|path| tube(p, path)).fold(f64::INFINITY, f64::min)
}

#[rustfmt::skip]
fn arteries() -> Vec<Path> {
    vec![
        // Aorta from its root over the arch to the diaphragm, then the three vessels of the arch.
        path(&[(-2., -22., -14., 14.), (-15., -30., 15., 15.), (-14., -22., 45., 14.5), (-2., -2., 64., 13.5),
               (14., 20., 64., 13.), (26., 38., 42., 12.5), (27., 40., 5., 12.), (22., 38., -60., 11.5), (12., 36., -170., 11.)]),
        path(&[(-8., -12., 66., 7.), (-18., -10., 105., 6.5), (-42., -6., 150., 6.)]),
        path(&[(4., 2., 68., 4.5), (14., 0., 105., 4.), (18., 0., 150., 4.)]),
        path(&[(13., 16., 68., 5.5), (28., 14., 105., 5.), (46., 6., 150., 5.)]),
        // Pulmonary trunk with its right and left branch.
        path(&[(10., -42., -18., 13.), (15., -34., 6., 13.), (17., -18., 20., 12.), (32., 0., 24., 9.5), (46., 14., 12., 8.)]),
        path(&[(17., -18., 19., 11.), (-6., -6., 17., 10.), (-26., -3., 15., 9.5), (-46., 2., 8., 8.)]),
    ]
}

#[rustfmt::skip]
fn veins() -> Vec<Path> {
    vec![
        // Superior vena cava and the veins that join it, inferior vena cava, pulmonary veins.
        path(&[(-26., -22., 86., 8.), (-31., -18., 60., 9.), (-33., -15., 25., 9.5), (-30., -10., -10., 10.)]),
        path(&[(-28., -24., 76., 7.), (0., -34., 80., 6.5), (30., -24., 100., 6.), (60., -10., 135., 6.)]),
        path(&[(-28., -6., -60., 11.), (-24., 10., -110., 12.), (-24., 14., -170., 12.)]),
        path(&[(-6., 8., -22., 9.), (-22., 5., -20., 7.), (-36., 6., -28., 6.), (-48., 9., -40., 4.5)]),
        path(&[(16., 10., -22., 9.), (30., 13., -14., 6.5), (42., 10., -10., 5.5), (52., 12., -20., 4.5)]),
    ]
}

#[rustfmt::skip]
fn airways() -> Vec<Path> {
    vec![
        path(&[(0., 4., 180., 8.5), (0., 8., 110., 8.5), (1., 12., 65., 8.5), (2., 16., 34., 9.)]),
        path(&[(2., 16., 36., 7.5), (-20., 18., 14., 6.5), (-34., 16., 2., 5.5), (-46., 14., -12., 4.8)]),
        path(&[(2., 16., 36., 7.), (24., 19., 13., 6.), (38., 18., 3., 5.), (50., 17., -10., 4.2)]),
    ]
}

impl Anatomy {
    pub(super) fn new(seed: u64) -> Self {
        let draw = |k: u64| 2.0 * Noise::new(seed, 1).uniform(k) - 1.0;
        Self {
            texture: Texture { seed: seed ^ 0x5DEE_CE66 },
            size: 1.0 + 0.04 * draw(0),
            fat: 11.0 + 5.0 * draw(1),
            heart: 1.0 + 0.06 * draw(2),
            arteries: arteries(),
            veins: veins(),
            airways: airways(),
        }
    }

    /// The patient's own coordinates of a place in the scanner.
    pub(super) fn local(&self, p: Point) -> Point {
        p / self.size
    }

    /// The value at `p`, with surfaces `width` mm wide.
    pub(super) fn value(&self, p: Point, width: f64) -> f64 {
        let mut paint = Paint::new(AIR, width);
        self.table(p, &mut paint);
        let body = self.body(p);
        if body < width {
            self.wall(p, body, &mut paint);
            let cavity = self.cavity(p);
            if cavity < 22.0 {
                self.ribs(p, cavity, &mut paint);
            }
            if cavity < width {
                self.cavity_contents(p, cavity, &mut paint);
            }
            if p.x.abs() < 60.0 && p.y > 20.0 {
                self.spine(p, &mut paint);
            }
        }
        paint.value
    }

    /// Skin.
    fn body(&self, p: Point) -> f64 {
        let shoulders = ramp(p.z, 30.0, 150.0);
        let half = (178.0 + 18.0 * shoulders, 120.0 - 8.0 * shoulders);
        let furrow = 7.0 * (-(p.x / 20.0).powi(2)).exp() * ramp(p.y, 20.0, 90.0);
        let hollow = 5.0 * (-(p.x / 28.0).powi(2)).exp() * ramp(-p.y, 20.0, 90.0);
        superellipse(p.x, p.y, half, 2.5) + furrow + hollow + 2.5 * self.texture.field(p, 80.0)
    }

    /// The inner surface of the rib cage.
    fn cavity(&self, p: Point) -> f64 {
        let up = (p.z.max(0.0) / 150.0).powi(3);
        let size = if up < 1.0 { (1.0 - up).sqrt() } else { return 60.0 };
        let down = ramp(-p.z, 0.0, 150.0);
        let half = ((136.0 + 5.0 * down) * (0.25 + 0.75 * size), (90.0 + 3.0 * down) * (0.5 + 0.5 * size));
        superellipse(p.x, p.y + 2.0, half, 2.25) + 1.5 * self.texture.field(p, 55.0)
    }

    /// Height above the dome of the diaphragm.
    fn above_diaphragm(&self, p: Point) -> f64 {
        let dome = |x: f64, y: f64, top: f64| top - ((p.x - x).powi(2) + (p.y - y).powi(2)) / 170.0;
        p.z - dome(-66.0, -14.0, -84.0).max(dome(66.0, -8.0, -98.0))
    }

    /// What lies between the lungs.
    fn mediastinum(&self, p: Point) -> f64 {
        // No part of it reaches this far to the sides.
        if p.x.abs() > 85.0 {
            return 20.0;
        }
        let wide = 4.0 + 17.0 * ramp(p.y, -80.0, -25.0) + 6.0 * ramp(p.z, 30.0, 70.0);
        let column = (p.x - 1.0).abs() - wide + 4.0 * self.texture.field(p, 40.0);
        let spine = superellipse(p.x, p.y - 74.0, (30.0, 40.0), 2.0);
        let vessels = nearest(&self.arteries[..1], p).min(nearest(&self.veins[..1], p)) - 2.5;
        let hila = nearest(&self.arteries[4..], p).min(nearest(&self.veins[2..], p)) - 2.0;
        let heart = self.heart_distance(p) - 4.0;
        blend(blend(blend(column, spine, 14.0), heart, 14.0), vessels.min(hila), 6.0)
    }

    /// Both lungs; the region that the trees of vessels fill.
    pub(super) fn lungs(&self, p: Point, cavity: f64) -> f64 {
        (cavity + 2.5).max(-self.mediastinum(p)).max(-0.75 * self.above_diaphragm(p))
    }

    /// As [`Self::lungs`], from a place alone.
    pub(super) fn lungs_at(&self, p: Point) -> f64 {
        self.lungs(p, self.cavity(p))
    }

    /// Skin, fat, muscles, shoulder blades.
    fn wall(&self, p: Point, body: f64, paint: &mut Paint) {
        paint.fill(body, 20.0);
        paint.fill(body + 2.0, FAT + 14.0 * self.texture.rough(p, 9.0));
        let side = (p.x.abs() / 160.0).min(1.0);
        let breast = ramp(-p.y, 30.0, 90.0) * (-((p.x.abs() - 85.0) / 40.0).powi(2)).exp();
        let fat = self.fat * (0.7 + 0.6 * side) + 12.0 * breast + 3.0 * self.texture.field(p, 30.0);
        let streaks = ramp(self.texture.rough(point(p.x, 1.4 * p.y, 0.5 * p.z), 13.0), 0.22, 0.5);
        let muscle = MUSCLE + 11.0 * self.texture.rough(p, 5.0);
        paint.fill(body + fat, muscle + streaks * (0.85 * FAT - muscle));
        self.shoulder_blades(p, paint);
    }

    fn shoulder_blades(&self, p: Point, paint: &mut Paint) {
        if p.z < -45.0 || p.y < 0.0 {
            return;
        }
        let x = p.x.abs();
        let tip = ramp(p.z, -45.0, 20.0);
        let bow = 5.0 * ((x - 105.0) / 30.0).powi(2);
        let q = point(x, p.y + bow, 0.0);
        let from = point(106.0 - 30.0 * tip, 92.0 + 4.0 * tip, 0.0);
        let to = point(110.0 + 30.0 * tip, 88.0 - 26.0 * tip, 0.0);
        let blade = tube(q, &[(from, 3.0), (to, 3.6)]).max(-45.0 - p.z);
        let spine = tube(q, &[(point(100.0, 86.0, 0.0), 2.8), (point(126.0, 94.0, 0.0), 3.2)]);
        self.bone(p, blade, 1.6, paint);
        self.bone(p, spine.max(35.0 - p.z), 1.6, paint);
    }

    /// A shell of compact bone around spongy bone.
    fn bone(&self, p: Point, distance: f64, shell: f64, paint: &mut Paint) {
        if distance < paint.width {
            paint.fill(distance, CORTEX);
            paint.fill(distance + shell, 210.0 + 90.0 * self.texture.rough(p, 3.0));
        }
    }

    /// Ribs slope down from the spine to the front; the last part is cartilage, rising to the breastbone.
    fn ribs(&self, p: Point, cavity: f64, paint: &mut Paint) {
        let between = ramp((cavity - 13.5).abs(), 0.5, 2.5);
        if between < 1.0 {
            paint.fill((cavity - 13.5).abs() - 1.5, 0.8 * FAT);
        }
        let breastbone = superellipse(p.x, p.y + 99.0, (19.0 + 0.08 * p.z.max(0.0), 6.5), 2.6);
        let turn = (p.x.abs() / 136.0).atan2((p.y + 2.0) / 90.0) / std::f64::consts::PI;
        let drop = 100.0 * (1.0 - (1.25 * turn.min(0.8) * std::f64::consts::PI).cos()) / 2.0
            - 55.0 * ((turn - 0.8).max(0.0) / 0.2);
        let level = (p.z + drop) / LEVEL - 0.32;
        let off = (level - level.round()) * LEVEL * 0.88;
        let rib = (((cavity - 6.5) / 4.3).hypot(off / 6.4) - 1.0) * 4.3;
        if turn > 0.10 && level.round() < 6.5 {
            if turn < 0.78 {
                self.bone(p, rib, 1.3, paint);
            } else if p.z > -95.0 {
                paint.fill(rib, 105.0 + 20.0 * self.texture.rough(p, 4.0));
            }
        }
        self.bone(p, breastbone.max(-75.0 - p.z), 1.4, paint);
    }

    fn cavity_contents(&self, p: Point, cavity: f64, paint: &mut Paint) {
        let soft = self.texture.rough(p, 5.0);
        paint.fill(cavity, FAT + 10.0 * soft);
        let above = self.above_diaphragm(p);
        let lungs = self.lungs(p, cavity);
        if above < 6.0 {
            self.abdomen(p, cavity.max(0.75 * above), paint);
        }
        if lungs < paint.width {
            let air =
                -868.0 + 0.45 * p.y + 16.0 * self.texture.rough(p, 12.0) + 14.0 * self.texture.rough(p, 3.5);
            paint.fill(lungs, air);
            let fissure = 0.86 * (p.y + 12.0 - 0.6 * (p.z + 10.0)) + 5.0 * self.texture.field(p, 60.0);
            paint.cover(lungs + 1.0, fissure.abs() - 0.4, -760.0);
        }
        if self.mediastinum(p) < 8.0 {
            self.heart_chambers(p, paint);
            self.great_vessels(p, soft, paint);
        }
    }

    fn abdomen(&self, p: Point, inside: f64, paint: &mut Paint) {
        paint.fill(inside, 45.0);
        let split = p.x - 28.0 + 0.35 * p.y + 4.0 * self.texture.field(p, 35.0);
        paint.cover(inside + 2.5, split, 112.0 + 12.0 * self.texture.rough(p, 6.0));
        paint.cover(inside + 3.0, 2.0 - split, FAT);
        let spleen = ellipsoid(p, point(88.0, 40.0, -125.0), point(34.0, 38.0, 45.0));
        paint.cover(inside + 2.0, spleen, 120.0 + 12.0 * self.texture.rough(p, 6.0));
        let stomach = ellipsoid(p, point(66.0, -22.0, -128.0), point(36.0, 42.0, 34.0));
        paint.cover(inside + 3.0, stomach, 40.0);
        paint.cover(inside + 6.0, stomach.max(p.y + 38.0) + 4.0, AIR + 30.0);
    }

    /// The heart's own coordinates: along its axis to the apex, to its left and back, and up.
    fn heart_frame(&self, p: Point) -> Point {
        let apex = point(0.62, -0.56, -0.55).normalize();
        let back = point(0.70, 0.70, 0.10);
        let back = (back - apex * apex.dot(&back)).normalize();
        let q = (p - point(10.0, -28.0, -46.0)) / self.heart;
        point(apex.dot(&q), back.dot(&q), apex.cross(&back).dot(&q))
    }

    fn heart_distance(&self, p: Point) -> f64 {
        ellipsoid(self.heart_frame(p), Point::zeros(), point(64.0, 43.0, 46.0))
            + 1.5 * self.texture.field(p, 25.0)
    }

    fn heart_chambers(&self, p: Point, paint: &mut Paint) {
        let surface = self.heart_distance(p);
        if surface > paint.width {
            return;
        }
        let q = self.heart_frame(p);
        let soft = 6.0 * self.texture.rough(p, 5.0);
        paint.fill(surface, 30.0);
        paint.fill(surface + 1.2, FAT + 1.5 * soft);
        // The fat of the groove between atria and ventricles reaches deeper than that of the rest.
        let groove = 8.0 * (-((q.x + 14.0) / 6.0).powi(2)).exp();
        paint.fill(surface + 3.5 + groove + 1.5 * self.texture.field(p, 9.0), 108.0 + soft);
        let chambers = [
            (point(13.0, 17.0, 0.0), point(36.0, 16.0, 20.0)),
            (point(8.0, -21.0, 4.0), point(40.0, 13.0, 27.0)),
            (point(-36.0, 15.0, 4.0), point(17.0, 20.0, 27.0)),
            (point(-32.0, -20.0, -2.0), point(20.0, 16.0, 26.0)),
        ];
        let walls = chambers.map(|(centre, radii)| ellipsoid(q, centre, radii));
        let blood = walls.into_iter().fold(f64::INFINITY, f64::min) + 0.8 * self.texture.field(p, 6.0);
        paint.cover(surface + 3.0, blood, BLOOD + 0.6 * soft);
    }

    fn great_vessels(&self, p: Point, soft: f64, paint: &mut Paint) {
        let arteries = nearest(&self.arteries, p);
        paint.fill(arteries - 1.6, 50.0);
        paint.fill(arteries, BLOOD + 15.0 + 5.0 * soft);
        paint.fill(nearest(&self.veins, p), BLOOD - 30.0 + 6.0 * soft);
        paint.fill(superellipse(p.x - 5.0, p.y - 29.0, (8.0, 4.6), 2.0), 38.0 + 6.0 * soft);
        let nodes = [(-14.0, 2.0, 40.0), (10.0, 4.0, 30.0), (-22.0, -34.0, 30.0), (6.0, 26.0, -16.0)];
        for (x, y, z) in nodes {
            paint.fill(ellipsoid(p, point(x, y, z), point(5.0, 3.2, 6.0)), 60.0);
        }
        self.airway(nearest(&self.airways, p), 1.4, paint);
    }

    /// A wall with air inside.
    pub(super) fn airway(&self, distance: f64, wall: f64, paint: &mut Paint) {
        paint.fill(distance - wall, 20.0);
        paint.fill(distance, AIR + 15.0);
    }

    /// Vertebrae with discs, the canal with the cord, arches and processes, the muscles of the back.
    fn spine(&self, p: Point, paint: &mut Paint) {
        let x = p.x.abs();
        let muscle = superellipse(x - 26.0, p.y - 97.0, (25.0, 17.0), 2.4);
        let streaks = ramp(self.texture.rough(p, 10.0), 0.25, 0.5);
        paint.cover(self.body(p) + 8.0, muscle, MUSCLE + 6.0 * self.texture.rough(p, 5.0) - 130.0 * streaks);
        let level = p.z / LEVEL;
        let off = (level - level.round()) * LEVEL;
        let waist = 1.0 - 0.10 * (1.0 - (off / 10.0).powi(2)).max(0.0);
        let body = superellipse(p.x, p.y - 51.0, (18.5 * waist, 15.5 * waist), 2.3);
        self.bone(p, body.max(off.abs() - 10.2), 1.5, paint);
        paint.fill(body.max(10.4 - off.abs()) + 0.8, 85.0);
        let canal = p.x.hypot(p.y - 75.5) - 9.0;
        self.bone(p, (canal - 4.8).max(off.abs() - 9.0), 1.6, paint);
        let transverse = tube(
            p.map(|_| 0.0) + point(x, p.y, 0.7 * off),
            &[(point(12.0, 78.0, 0.0), 5.0), (point(40.0, 88.0, 0.0), 4.0)],
        );
        self.bone(p, transverse, 1.4, paint);
        let low = 0.55 * (p.y - 88.0) + off;
        let spinous = superellipse(p.x, p.y - 98.0, (3.4, 13.0), 2.5).max(low.abs() - 9.0);
        self.bone(p, spinous, 1.3, paint);
        paint.fill(canal, -15.0);
        paint.fill(canal + 1.5, 12.0);
        paint.fill(superellipse(p.x, p.y - 75.0, (5.4, 4.2), 2.0), 40.0);
    }

    /// A curved couch of carbon fibre and foam, with a mat.
    fn table(&self, p: Point, paint: &mut Paint) {
        let depth = p.y - 124.0 + 24.0 * (p.x / 215.0).powi(2);
        let sheet = |from: f64, to: f64| (from - depth).max(depth - to).max(p.x.abs() - 212.0);
        paint.fill(sheet(-16.0, 0.0), -920.0);
        paint.fill(sheet(0.0, 24.0), -120.0);
        paint.fill(sheet(1.6, 22.4), -945.0);
    }
}
