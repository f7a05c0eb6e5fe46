use std::fmt::Write;

/// Colours that stand out from white and from black.
const STYLE: &str = "\
    text{font-family:system-ui,'Segoe UI',Helvetica,Arial,sans-serif;font-size:12px;fill:#75808b}\
    .title{font-size:17px;font-weight:600}\
    .panel{font-size:13px;font-weight:600}\
    .value{font-size:11px}\
    .note{font-size:11px}\
    line{stroke:#75808b;stroke-width:1}\
    .grid{stroke-opacity:.25}\
    .goal{stroke-opacity:.6;stroke-dasharray:4 3}\
    .spread{stroke-width:1.5}\
    .far{fill:#2e9f5b}\
    .ahead{fill:#3f8fd4}\
    .behind{fill:#d9622b}";

/// To which side of its place a text goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// An image in the making. Places are pixels from the left and from the top; what a class looks
/// like is in the style.
#[derive(Debug)]
pub(super) struct Drawing {
    text: String,
}

impl Drawing {
    pub(super) fn new(width: f64, height: f64) -> Self {
        let mut text = String::new();
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(
            text,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\">\n<style>{STYLE}</style>"
        );
        Self { text }
    }

    pub(super) fn text(&mut self, class: &str, anchor: Anchor, (x, y): (f64, f64), content: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let content = escape(content);
        let _ = writeln!(
            self.text,
            "<text class=\"{class}\" text-anchor=\"{anchor}\" x=\"{x:.1}\" y=\"{y:.1}\">\
             {content}</text>"
        );
    }

    pub(super) fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let _ = writeln!(
            self.text,
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        );
    }

    /// A filled rectangle from one corner to the opposite one.
    pub(super) fn bar(
        &mut self,
        class: &str,
        (left, top): (f64, f64),
        (right, bottom): (f64, f64),
    ) {
        let (width, height) = (right - left, bottom - top);
        let _ = writeln!(
            self.text,
            "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" \
             height=\"{height:.1}\" rx=\"1.5\"/>"
        );
    }

    pub(super) fn finish(self) -> String {
        self.text + "</svg>\n"
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
