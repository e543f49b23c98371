//! Which charts measurements make.
//!
//! One over M for each layer that was measured with several; and one over bits for each layer that was
//! measured with several bitrates, at the smallest such M. Devices and worlds have charts of their
//! own, commits lines of their own.

use super::super::record::Record;

/// What a chart's times stand over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Axis {
    /// Rows of the input.
    M,
    /// Bits per weight.
    Bits,
}

/// A chart: µs over one axis.
#[derive(PartialEq, Debug)]
pub struct Panel {
    /// The layer.
    pub title: String,
    /// Where it was measured.
    pub place: String,
    /// What the times stand over.
    pub axis: Axis,
    /// One for each variant, or for each commit of it.
    pub lines: Vec<Line>,
}

/// The times of a variant, in the order of the axis.
#[derive(PartialEq, Debug)]
pub struct Line {
    /// For the legend.
    pub label: String,
    /// By name.
    pub variant: String,
    /// Place on the axis, and µs.
    pub points: Vec<(f64, f64)>,
}

/// Records that have something in common.
type Group<'a> = Vec<&'a Record>;

/// The charts of these measurements.
pub fn panels(records: &[Record]) -> Vec<Panel> {
    // Both axes of M are logarithmic.
    let drawable = |r: &&Record| r.m > 0 && r.times.median > 0.0 && r.times.median.is_finite();
    let records: Group<'_> = records.iter().filter(drawable).collect();
    let with_bits = |r: &Record| (format!("{}, {} bits", layer(r), r.bits), place(r));
    let of_m = groups(&records, with_bits);
    let of_bits = groups(&records, |r| (layer(r), place(r)));
    let several_m = |group: &Group<'_>| groups(group, |r| r.m).len() > 1;
    let over_m = of_m.iter().filter(|(_, group)| several_m(group));
    let over_m = over_m.map(|(key, group)| Panel::new(key.clone(), Axis::M, group));
    let over_bits = of_bits.into_iter().filter_map(over_bits);
    let panels: Vec<Panel> = over_m.chain(over_bits).collect();
    if !panels.is_empty() {
        return panels;
    }
    // One M and one bitrate: points are better than nothing.
    let all = of_m.into_iter();
    all.map(|(key, group)| Panel::new(key, Axis::M, &group))
        .collect()
}

/// A layer's identity but for its bits.
fn layer(record: &Record) -> String {
    let (shape, size) = (&record.shape, format!("{}x{}", record.k, record.n));
    if *shape == size {
        return format!("{shape}, {}", record.codebook);
    }
    format!("{shape} ({size}), {}", record.codebook)
}

fn place(record: &Record) -> String {
    let ranks = record.ranks.describe(record.world);
    format!("{ranks} on {}", record.device)
}

/// The chart of a layer's records at the smallest M that has several bitrates, if there is one.
fn over_bits(((layer, place), group): ((String, String), Group<'_>)) -> Option<Panel> {
    let by_m = groups(&group, |r| r.m).into_iter();
    let several = by_m.filter(|(_, group)| groups(group, |r| r.bits).len() > 1);
    let (m, group) = several.min_by_key(|(m, _)| *m)?;
    let title = format!("{layer}, M {m}");
    Some(Panel::new((title, place), Axis::Bits, &group))
}

/// Records with the same key, keys in the order of their first record.
fn groups<'a, K: PartialEq>(
    records: &[&'a Record],
    key: impl Fn(&Record) -> K,
) -> Vec<(K, Group<'a>)> {
    let mut groups: Vec<(K, Group<'a>)> = Vec::new();
    for record in records {
        let key = key(record);
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, group)) => group.push(record),
            None => groups.push((key, vec![record])),
        }
    }
    groups
}

impl Panel {
    fn new((title, place): (String, String), axis: Axis, group: &[&Record]) -> Self {
        let by_variant = groups(group, |r| r.variant.clone()).into_iter();
        let lines = by_variant.flat_map(|(variant, group)| {
            let by_commit = groups(&group, |r| r.commit.clone());
            let alone = by_commit.len() == 1;
            let lines = by_commit.into_iter().map(move |(commit, group)| Line {
                label: match alone {
                    true => variant.clone(),
                    false => format!("{variant}, {commit}"),
                },
                variant: variant.clone(),
                points: axis.points(&group),
            });
            lines.collect::<Vec<_>>()
        });
        Panel {
            title,
            place,
            axis,
            lines: lines.collect(),
        }
    }

    /// The points of all lines.
    pub fn points(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.lines
            .iter()
            .flat_map(|line| line.points.iter().copied())
    }
}

impl Axis {
    /// For a reader.
    pub fn label(self) -> &'static str {
        match self {
            Axis::M => "M (rows)",
            Axis::Bits => "bits per weight",
        }
    }

    fn points(self, group: &[&Record]) -> Vec<(f64, f64)> {
        let point = |record: &&Record| match self {
            Axis::M => (record.m as f64, record.times.median),
            Axis::Bits => (record.bits, record.times.median),
        };
        let mut points: Vec<_> = group.iter().map(point).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::record::tests::record;
    use super::*;

    #[test]
    fn several_m_make_a_panel_and_several_bits_another() {
        let mut records = vec![record("fused", 4.0, 8, 14.0)];
        for variant in ["fused", "floor"] {
            records.push(record(variant, 4.0, 1, 12.0));
            records.push(record(variant, 2.0, 1, 11.0));
        }
        let panels = panels(&records);
        let found: Vec<_> = panels.iter().map(|p| (p.title.as_str(), p.axis)).collect();
        let expected = [
            ("70b-o (8192x8192), mul1, 4 bits", Axis::M),
            ("70b-o (8192x8192), mul1, M 1", Axis::Bits),
        ];
        assert_eq!(found, expected);
        assert_eq!(panels[0].place, "2 ranks on two of them");
        assert_eq!(panels[0].lines[0].points, [(1.0, 12.0), (8.0, 14.0)]);
        assert_eq!(panels[1].lines[1].points, [(2.0, 11.0), (4.0, 12.0)]);
    }

    #[test]
    fn devices_have_panels_and_commits_lines_of_their_own() {
        let mut records = vec![record("fused", 4.0, 1, 12.0); 3];
        records.push(record("floor", 4.0, 1, 6.0));
        records[1].commit = "def".into();
        records[2].device = "others".into();
        let panels = panels(&records);
        let labels = |at: usize| -> Vec<&str> {
            let lines: &[Line] = &panels[at].lines;
            lines.iter().map(|line| line.label.as_str()).collect()
        };
        assert_eq!(labels(0), ["fused, abc", "fused, def", "floor"]);
        assert_eq!(labels(1), ["fused"]);
    }
}
