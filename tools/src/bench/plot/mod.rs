//! Measurements as an SVG: a panel for each layer, a line for each variant.
//!
//! `panel` says which charts the measurements make; here they are drawn.

mod panel;

use super::record::Record;
use super::variant::Variant;
use anyhow::{ensure, Context as _, Result};
use panel::{panels, Axis, Panel};
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::Path;

const COLUMNS: usize = 2;
const PANEL: (u32, u32) = (640, 400);
const MARGIN: u32 = 12;
const X_LABELS: u32 = 36;
const Y_LABELS: u32 = 52;
/// Beside the lines, so that it covers none.
const LEGEND: u32 = 150;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Writes the plot of these measurements.
pub fn write(path: &Path, records: &[Record]) -> Result<()> {
    let svg = svg(records)?;
    std::fs::write(path, svg).with_context(|| path.display().to_string())
}

fn svg(records: &[Record]) -> Result<String> {
    let panels = panels(records);
    ensure!(!panels.is_empty(), "there is nothing to plot");
    let (columns, rows) = (COLUMNS.min(panels.len()), panels.len().div_ceil(COLUMNS));
    let size = (PANEL.0 * columns as u32, PANEL.1 * rows as u32);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE)?;
        let areas = root.split_evenly((rows, columns));
        areas
            .iter()
            .zip(&panels)
            .try_for_each(|(area, panel)| draw(panel, area))?;
        root.present()?;
    }
    Ok(svg)
}

fn draw(panel: &Panel, area: &Area<'_>) -> Result<()> {
    let area = area.margin(MARGIN, MARGIN, MARGIN, MARGIN);
    let area = area.titled(&panel.title, ("sans-serif", 15))?;
    let area = area.titled(&panel.place, ("sans-serif", 11))?;
    let (area, legend) = area.split_horizontally(area.dim_in_pixel().0.saturating_sub(LEGEND));
    draw_legend(panel, &legend)?;
    let (left, right) = extent(panel.points().map(|(x, _)| x));
    let (bottom, top) = extent(panel.points().map(|(_, y)| y));
    match panel.axis {
        Axis::M => {
            // Half a power of two on each side.
            let x = (left / 1.4..right * 1.4).log_scale().base(2.0);
            draw_on(panel, &area, x, (bottom / 1.3..top * 1.3).log_scale())
        }
        Axis::Bits => draw_on(panel, &area, left - 0.5..right + 0.5, 0.0..top * 1.1),
    }
}

/// Smallest and greatest.
fn extent(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    })
}

fn draw_on<X, Y>(panel: &Panel, area: &Area<'_>, x: X, y: Y) -> Result<()>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let mut chart = ChartBuilder::on(area)
        .x_label_area_size(X_LABELS)
        .y_label_area_size(Y_LABELS)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .x_desc(panel.axis.label())
        .y_desc("µs per call")
        .x_label_formatter(&|x| format!("{x}"))
        .y_label_formatter(&|y| format!("{y}"))
        .light_line_style(TRANSPARENT)
        .draw()?;
    for line in &panel.lines {
        let points = LineSeries::new(line.points.iter().copied(), style(&line.variant));
        chart.draw_series(points.point_size(3))?;
    }
    Ok(())
}

/// The names of the lines, from the top.
fn draw_legend(panel: &Panel, area: &Area<'_>) -> Result<()> {
    for (y, line) in (16..).step_by(18).zip(&panel.lines) {
        let sample = [(8, y), (26, y)];
        area.draw(&PathElement::new(sample, style(&line.variant)))?;
        area.draw(&Text::new(&*line.label, (32, y - 6), ("sans-serif", 12)))?;
    }
    Ok(())
}

/// The same for a variant in every panel; those of other programs share what is left.
fn style(variant: &str) -> ShapeStyle {
    const OTHERS: [RGBColor; 2] = [RGBColor(140, 86, 75), RGBColor(227, 119, 194)];
    let color = match variant.parse() {
        Ok(Variant::Fused) => RGBColor(214, 39, 40),
        Ok(Variant::FusedNorm) => RGBColor(148, 103, 189),
        Ok(Variant::FusedSquares) => RGBColor(197, 160, 220),
        Ok(Variant::FusedHostMemory) => RGBColor(23, 190, 207),
        Ok(Variant::Gemm) => RGBColor(255, 152, 62),
        Ok(Variant::GemmAllReduce) => RGBColor(44, 160, 44),
        Ok(Variant::AllReduce) => RGBColor(140, 200, 130),
        Ok(Variant::GemmNccl) => RGBColor(31, 119, 180),
        Ok(Variant::Nccl) => RGBColor(120, 175, 220),
        Ok(Variant::Floor) => RGBColor(90, 90, 90),
        Err(_) => OTHERS[variant.bytes().map(usize::from).sum::<usize>() % OTHERS.len()],
    };
    color.stroke_width(2)
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::record;
    use super::*;

    #[test]
    fn one_figure_is_still_a_plot() {
        let plot = svg(&[record("fused", 4.0, 1, 12.0)]).unwrap();
        assert!(plot.starts_with("<svg") && plot.contains("fused"));
        assert!(svg(&[]).is_err());
    }

    #[test]
    fn what_has_no_place_on_an_axis_is_left_out() {
        let none = record("fused", 4.0, 1, 0.0);
        assert!(svg(std::slice::from_ref(&none)).is_err());
        assert!(svg(&[none, record("floor", 4.0, 1, 6.0)]).is_ok());
    }
}
