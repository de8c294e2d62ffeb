//! Wrapping and colours, made by hand: there are four colours and one kind of paragraph.

/// How a piece of text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Look {
    Plain,
    Strong,
    Faint,
    Good,
    Bad,
    Warning,
    Heading,
}

impl Look {
    /// The parameters of the terminal's "select graphic rendition".
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Strong => Some("1"),
            Self::Faint => Some("2"),
            Self::Good => Some("1;32"),
            Self::Bad => Some("1;31"),
            Self::Warning => Some("33"),
            Self::Heading => Some("1;36"),
        }
    }
}

/// A text that grows line by line, wrapped to a width.
#[derive(Debug)]
pub(in crate::cli) struct Page {
    text: String,
    width: usize,
    color: bool,
}

impl Page {
    pub(in crate::cli) fn new(width: usize, color: bool) -> Self {
        Self {
            text: String::new(),
            width,
            color,
        }
    }

    pub(in crate::cli) fn width(&self) -> usize {
        self.width
    }

    pub(in crate::cli) fn finish(self) -> String {
        self.text
    }

    /// One of two marks: the terminal's, or the one every log can show.
    pub(in crate::cli) fn mark(&self, terminal: &'static str, log: &'static str) -> &'static str {
        if self.color { terminal } else { log }
    }

    pub(in crate::cli) fn blank(&mut self) {
        self.text.push('\n');
    }

    /// A line of pieces that is not wrapped.
    pub(in crate::cli) fn line(&mut self, pieces: &[(Look, &str)]) {
        for (look, piece) in pieces {
            self.push(*look, piece);
        }
        while self.text.ends_with(' ') {
            self.text.pop();
        }
        self.text.push('\n');
    }

    /// A paragraph of words, each line `indent` columns in; `lead` stands in front of the first one, inside the indent.
    pub(in crate::cli) fn paragraph(
        &mut self,
        indent: usize,
        lead: (Look, &str),
        look: Look,
        text: &str,
    ) {
        let room = self.width.saturating_sub(indent).max(1);
        let mut lines = wrap(text, room);
        if lines.is_empty() {
            lines.push(String::new());
        }
        for (number, line) in lines.iter().enumerate() {
            let lead = if number == 0 { lead } else { (Look::Plain, "") };
            let gap = indent.saturating_sub(lead.1.chars().count());
            self.push(lead.0, lead.1);
            self.text.push_str(&" ".repeat(gap));
            self.push(look, line);
            self.text.push('\n');
        }
    }

    fn push(&mut self, look: Look, piece: &str) {
        let piece = safe(piece);
        match look.code() {
            Some(code) if self.color && !piece.trim().is_empty() => {
                self.text.push_str("\u{1b}[");
                self.text.push_str(code);
                self.text.push('m');
                self.text.push_str(&piece);
                self.text.push_str("\u{1b}[0m");
            }
            _ => self.text.push_str(&piece),
        }
    }
}

/// Lines of at most `room` columns; a longer word gets a line of its own. Line feeds in the text are kept.
fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for part in text.lines() {
        let mut line = String::new();
        for word in part.split_whitespace() {
            let taken = line.chars().count();
            if taken > 0 && taken + 1 + word.chars().count() > room {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

/// What could move the cursor, change colours or turn the direction of writing becomes a question mark: an explanation may
/// come from an agent, and its values from anybody who sets variables.
fn safe(text: &str) -> String {
    text.chars()
        .map(|c| {
            let turns = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
            if c.is_control() || turns { '?' } else { c }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Look, Page, wrap};

    #[test]
    fn words_stay_whole() {
        assert_eq!(wrap("a bb ccc dddd", 5), ["a bb", "ccc", "dddd"]);
        assert_eq!(
            wrap("http://long.example/path a", 5),
            ["http://long.example/path", "a"]
        );
        assert_eq!(wrap("one\ntwo", 80), ["one", "two"]);
    }

    #[test]
    fn a_paragraph_hangs_below_its_lead() {
        let mut page = Page::new(14, false);
        page.paragraph(6, (Look::Strong, "  ab"), Look::Plain, "one two three");
        assert_eq!(page.finish(), "  ab  one two\n      three\n");
    }

    #[test]
    fn colour_is_closed_on_its_line_and_text_cannot_bring_its_own() {
        let mut page = Page::new(80, true);
        page.line(&[
            (Look::Good, "fine"),
            (Look::Plain, " \u{1b}[31mred\u{202e}"),
        ]);
        assert_eq!(page.finish(), "\u{1b}[1;32mfine\u{1b}[0m ?[31mred?\n");
    }
}
