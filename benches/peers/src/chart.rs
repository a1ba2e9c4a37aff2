//! The ratios as bars.

use std::path::Path;

use plotters::prelude::*;

use crate::Failure;
use crate::rows::Row;

const ROW_PIXELS: u32 = 18;
const WIDTH_PIXELS: u32 = 1_000;
const NAMES_PIXELS: u32 = 380;
/// What lies beyond is cut off.
const RATIOS: (f64, f64) = (0.1, 1_000.0);
const FASTER: RGBColor = RGBColor(70, 130, 90);
const SLOWER: RGBColor = RGBColor(190, 80, 60);

/// Draws how many times longer the peers take, a bar for each row that is a time, on a logarithmic scale; bars to
/// the left of 1 are those where the peer is faster.
pub fn draw(rows: &[Row], file: &Path) -> Result<(), Failure> {
    let bars: Vec<(&Row, f64)> =
        rows.iter().filter(|row| row.is_time()).filter_map(|row| Some((row, row.ratio()?))).collect();
    if bars.is_empty() {
        return Ok(());
    }
    let count = bars.len() as i32;
    let area = SVGBackend::new(file, (WIDTH_PIXELS, ROW_PIXELS * bars.len() as u32 + 90)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("time of the peer / time of Larder (right of 1: Larder is faster)", ("sans-serif", 20))
        .margin(10)
        .margin_right(60)
        .x_label_area_size(30)
        .y_label_area_size(NAMES_PIXELS)
        .build_cartesian_2d((RATIOS.0..RATIOS.1).log_scale(), (0..count).into_segmented())?;
    let name = |at: &SegmentValue<i32>| match at {
        SegmentValue::CenterOf(index) => {
            bars.get((count - 1 - index) as usize).map(|(row, _)| row.name.clone())
        }
        _ => None,
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(bars.len())
        .y_label_formatter(&|at| name(at).unwrap_or_default())
        .y_label_style(("sans-serif", 16))
        .x_label_formatter(&|ratio| format!("{ratio}"))
        .draw()?;
    chart.draw_series(bars.iter().zip((0..count).rev()).map(|((_, ratio), index)| {
        let end = ratio.clamp(RATIOS.0, RATIOS.1);
        let color = if *ratio >= 1.0 { FASTER } else { SLOWER };
        let corners = [(1.0, SegmentValue::Exact(index)), (end, SegmentValue::Exact(index + 1))];
        let mut bar = Rectangle::new(corners, color.filled());
        bar.set_margin(3, 3, 0, 0);
        bar
    }))?;
    chart.draw_series(bars.iter().zip((0..count).rev()).map(|((_, ratio), index)| {
        let at = (ratio.clamp(1.0, RATIOS.1), SegmentValue::CenterOf(index));
        EmptyElement::at(at) + Text::new(format!("{ratio:.2}"), (4, -6), ("sans-serif", 16))
    }))?;
    area.present()?;
    Ok(())
}
