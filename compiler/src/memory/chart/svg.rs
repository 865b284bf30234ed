//! The plan as a drawing: time across, offset up, one box per buffer.

use std::fmt::Write as _;

use super::{Buffer, Plan, Problem, Span, fullest_step};

/// Pixels of the drawing area, and of the margin that holds the axes.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 500.0;
const MARGIN: f64 = 90.0;

/// Smallest box with a label, and the width of one letter of it, in pixels.
const LABEL_HEIGHT: f64 = 11.0;
const LETTER: f64 = 6.2;

/// The plan as an SVG document. Each buffer is a box with its name, bytes and steps as tooltip, and its name as label
/// where that fits; aliases are drawn hatched inside of what they share. The peak is a dashed line, the fullest step a
/// dotted one.
pub fn svg(problem: &Problem, plan: &Plan) -> String {
    let canvas = Canvas { span: Span::of(problem), peak: plan.peak };
    let mut text = header();
    for (i, (buffer, &offset)) in problem.buffers().iter().zip(&plan.offsets).enumerate() {
        canvas.draw_box(&mut text, i, buffer, offset, problem.reserved(buffer));
    }
    canvas.draw_axes(&mut text, plan, fullest_step(problem));
    text + "</svg>\n"
}

fn header() -> String {
    let (width, height) = (WIDTH + 2.0 * MARGIN, HEIGHT + 2.0 * MARGIN);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n\
         <defs><pattern id=\"alias\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" \
         patternTransform=\"rotate(45)\"><line y2=\"6\" stroke=\"#333\" stroke-opacity=\"0.4\"/></pattern></defs>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    )
}

/// From steps and bytes to pixels.
struct Canvas {
    span: Span,
    peak: u64,
}

impl Canvas {
    fn x(&self, step: u32) -> f64 {
        MARGIN + WIDTH * f64::from(step - self.span.first) / self.span.steps().max(1) as f64
    }

    fn y(&self, byte: u64) -> f64 {
        MARGIN + HEIGHT * (1.0 - byte as f64 / self.peak.max(1) as f64)
    }

    fn draw_box(&self, text: &mut String, index: usize, buffer: &Buffer, offset: u64, reserved: u64) {
        let Buffer { id, size, lower, upper, alias_of, .. } = buffer;
        let (x, y) = (self.x(*lower), self.y(offset + reserved));
        let (width, height) = (self.x(*upper) - x, self.y(offset) - y);
        let name = escaped(id);
        let fill = if alias_of.is_some() { "url(#alias)".to_owned() } else { colour(index) };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{width:.2}\" height=\"{height:.2}\" fill=\"{fill}\" \
             stroke=\"#333\" stroke-width=\"0.5\"><title>{name}: {size} bytes at {offset}, steps {lower}..{upper}\
             </title></rect>"
        );
        let fits = height >= LABEL_HEIGHT && width >= LETTER * (id.chars().count() as f64 + 1.0);
        if fits && alias_of.is_none() {
            let (x, y) = (x + width / 2.0, y + height / 2.0 + 4.0);
            let _ = writeln!(
                text,
                "<text x=\"{x:.2}\" y=\"{y:.2}\" text-anchor=\"middle\" pointer-events=\"none\">{name}</text>"
            );
        }
    }

    fn draw_axes(&self, text: &mut String, plan: &Plan, fullest: u32) {
        let (left, right, top, bottom) = (MARGIN, MARGIN + WIDTH, MARGIN, MARGIN + HEIGHT);
        let _ = writeln!(
            text,
            "<path d=\"M{left} {top}V{bottom}H{right}\" fill=\"none\" stroke=\"black\"/>\n\
             <line x1=\"{left}\" x2=\"{right}\" y1=\"{top}\" y2=\"{top}\" stroke=\"#c00\" stroke-dasharray=\"6 4\"/>\n\
             <text x=\"{left}\" y=\"{:.2}\" fill=\"#c00\">peak {} bytes, lower bound {}, {}</text>",
            top - 8.0,
            plan.peak,
            plan.lower_bound,
            escaped(plan.solver),
        );
        let _ = writeln!(
            text,
            "<line x1=\"{0:.2}\" x2=\"{0:.2}\" y1=\"{top}\" y2=\"{bottom}\" stroke=\"#c00\" stroke-dasharray=\"1 3\">\
             <title>step {fullest}: {1} live bytes</title></line>",
            self.x(fullest),
            plan.lower_bound,
        );
        for quarter in 0..=4u32 {
            let byte = (u128::from(self.peak) * u128::from(quarter) / 4) as u64;
            let step = self.span.first + (self.span.steps() * u64::from(quarter) / 4) as u32;
            let _ = writeln!(
                text,
                "<text x=\"{:.2}\" y=\"{:.2}\" text-anchor=\"end\">{byte}</text>\n\
                 <text x=\"{:.2}\" y=\"{:.2}\" text-anchor=\"middle\">{step}</text>",
                left - 6.0,
                self.y(byte) + 4.0,
                self.x(step),
                bottom + 16.0,
            );
        }
        let _ = writeln!(
            text,
            "<text x=\"{:.2}\" y=\"{:.2}\" text-anchor=\"middle\">schedule step</text>",
            left + WIDTH / 2.0,
            bottom + 36.0
        );
    }
}

/// A light colour per index; steps of the golden angle keep neighbours apart.
fn colour(index: usize) -> String {
    let hue = (index as f64 * 137.508) % 360.0;
    format!("hsl({hue:.0},60%,75%)")
}

fn escaped(name: &str) -> String {
    name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
