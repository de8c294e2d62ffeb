//! The picture: a pure function of what is known, the size of the terminal and the time.

use jobcred_wire::{CallerStatus, Status, TokenStatus, UpstreamError};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Row, Table};

use super::super::output::{plain, span};
use super::bar::bar;
use super::view::View;

/// Width of a bar, in characters.
const BAR: usize = 20;
/// Errors shown at most, the newest ones.
const MAX_ERRORS: usize = 5;
/// A token with less left than this share of its life is shown as a warning.
const LOW: i64 = 4;

/// Draws everything at `now`, in unix seconds.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View, now: i64) {
    let status = &view.status;
    let errors = errors(status);
    let tokens = 2 * status.tokens.len().max(1);
    let [head, token_area, caller_area, error_area, foot] = Layout::vertical([
        Constraint::Length(if view.trouble.is_some() { 4 } else { 3 }),
        Constraint::Length(height(tokens)),
        Constraint::Min(4),
        Constraint::Length(height(errors.len().max(1))),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(heading(view, now)), head);
    frame.render_widget(
        Paragraph::new(token_lines(view, now, token_area.width)).block(titled("tokens", view)),
        token_area,
    );
    callers(frame, caller_area, view, now);
    let lines: Vec<Line<'_>> = if errors.is_empty() {
        vec![Line::from("none")]
    } else {
        errors.iter().map(|error| error_line(error, now)).collect()
    };
    frame.render_widget(
        Paragraph::new(lines).block(titled("last errors upstream", view)),
        error_area,
    );
    frame.render_widget(
        Paragraph::new("q: quit   up, down: scroll the callers"),
        foot,
    );
}

/// Lines of content, and the title's.
fn height(lines: usize) -> u16 {
    u16::try_from(lines + 1).unwrap_or(u16::MAX)
}

fn titled<'a>(title: &'a str, view: &View) -> Block<'a> {
    let mut block = Block::new()
        .borders(Borders::TOP)
        .title(format!(" {title} "));
    if !view.unicode {
        block = block.border_set(ratatui::symbols::border::Set {
            horizontal_top: "-",
            ..ratatui::symbols::border::PLAIN
        });
    }
    block
}

fn paint(view: &View, colour: Color) -> Style {
    if view.colours {
        Style::new().fg(colour)
    } else {
        Style::new()
    }
}

fn heading<'a>(view: &View, now: i64) -> Vec<Line<'a>> {
    let status = &view.status;
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut lines = vec![Line::from(vec![
        Span::styled(format!("jobcred {}", plain(&status.version)), bold),
        Span::raw(format!(
            "   pid {}   up {}   {}   leases {}",
            status.pid,
            span(now.saturating_sub(status.started_on)),
            plain(&status.strategy),
            status.leases
        )),
    ])];
    lines.push(Line::from(principal(status)));
    let runway = status.runway.map_or_else(
        || "no token in use".to_owned(),
        |seconds| format!("runway {}", span(seconds)),
    );
    let ready = match (
        status.ready,
        status.endpoint.is_some(),
        status.tokens.iter().any(|token| token.declared),
    ) {
        (true, _, true) => "   every declared token is there",
        (true, _, false) => "",
        (false, true, _) => "   NOT READY: the identity endpoint is not open",
        (false, false, true) => "   NOT READY: a declared token is missing",
        (false, false, false) => "   NOT READY: this agent gives no tokens",
    };
    lines.push(Line::from(format!(
        "{runway}{ready}   throttled {}   denied {}   restarts {}",
        status.throttles, status.denials, status.restarts
    )));
    if let Some(trouble) = &view.trouble {
        let style = paint(view, Color::Red).add_modifier(Modifier::BOLD);
        lines.push(Line::styled(format!("OLD: {trouble}; trying again"), style));
    }
    lines
}

fn principal(status: &Status) -> String {
    let Some(principal) = &status.principal else {
        return "whose tokens these are is known with the first one".to_owned();
    };
    let id = |id: &Option<String>| plain(id.as_deref().unwrap_or("unknown"));
    format!(
        "object id {}   tenant {}",
        id(&principal.object_id),
        id(&principal.tenant_id)
    )
}

/// Two lines for each token: which one, and how it fares.
fn token_lines<'a>(view: &View, now: i64, width: u16) -> Vec<Line<'a>> {
    let status = &view.status;
    if status.tokens.is_empty() {
        return vec![Line::from("nobody has asked yet")];
    }
    let mut lines = Vec::new();
    for (index, token) in status.tokens.iter().enumerate() {
        let mut name = plain(&token.resource);
        if token.identity != "default" {
            name = format!("{name} as {}", plain(&token.identity));
        }
        if token.declared {
            name.push_str(" (declared)");
        }
        lines.push(Line::styled(
            shorten(&name, usize::from(width)),
            Style::new().add_modifier(Modifier::BOLD),
        ));
        let left = token
            .expires_on
            .map_or(0, |expiry| expiry.saturating_sub(now));
        let whole = token
            .expires_on
            .zip(token.obtained_on)
            .map_or(0, |(expiry, obtained)| expiry.saturating_sub(obtained));
        let colour = match left {
            left if left <= 0 => Color::Red,
            left if left < whole / LOW => Color::Yellow,
            _ => Color::Green,
        };
        let rate = view.new_hits(index).filter(|&new| new > 0);
        lines.push(Line::from(vec![
            Span::styled(bar(left, whole, BAR, view.unicode), paint(view, colour)),
            Span::raw(format!(
                " {}   {} from memory{}   {} fetched   {} failed",
                life(token, now),
                token.hits,
                rate.map(|new| format!(" (+{new})")).unwrap_or_default(),
                token.fetches.saturating_sub(token.failures),
                token.failures
            )),
        ]));
    }
    lines
}

fn life(token: &TokenStatus, now: i64) -> String {
    match (token.expires_on, token.refresh_on) {
        (None, _) => "not yet got".to_owned(),
        (Some(expiry), _) if expiry <= now => "ended".to_owned(),
        (Some(expiry), Some(renewal)) if renewal > now => {
            format!(
                "{} left, renewed in {}",
                span(expiry.saturating_sub(now)),
                span(renewal.saturating_sub(now))
            )
        }
        (Some(expiry), _) => format!("{} left", span(expiry.saturating_sub(now))),
    }
}

fn callers(frame: &mut Frame<'_>, area: Rect, view: &View, now: i64) {
    let all = &view.status.callers;
    let rows = all.iter().skip(view.skipped).map(|caller| {
        let asked = view.new_requests(caller).filter(|&new| new > 0);
        Row::new([
            caller
                .pid
                .map_or_else(|| "?".to_owned(), |pid| pid.to_string()),
            caller.uid.to_string(),
            plain(caller.name.as_deref().unwrap_or("?")),
            rank(caller),
            format!(
                "{}{}",
                caller.requests,
                asked.map(|new| format!(" (+{new})")).unwrap_or_default()
            ),
            format!(
                "{} ago{}",
                span(now.saturating_sub(caller.last_seen_on)),
                if caller.ended { ", ended" } else { "" }
            ),
        ])
    });
    let widths = [
        Constraint::Length(8),
        Constraint::Length(6),
        Constraint::Length(16),
        Constraint::Length(18),
        Constraint::Length(14),
        Constraint::Min(10),
    ];
    let title = format!("callers: {}", all.len());
    let table = Table::new(rows, widths)
        .header(Row::new(["pid", "uid", "program", "rank", "asked", "last"]))
        .block(titled(&title, view));
    frame.render_widget(table, area);
}

/// A caller's rank as people say it: `3 of 16, local 3`.
pub(super) fn rank(caller: &CallerStatus) -> String {
    let first = |names: &[&str]| names.iter().find_map(|name| caller.ranks.get(*name));
    let rank = first(&["RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"]);
    let of = first(&["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"]);
    let local = first(&["LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID"]);
    let mut text = match (rank, of) {
        (Some(rank), Some(of)) => format!("{rank} of {of}"),
        (Some(rank), None) => rank.clone(),
        (None, _) => String::new(),
    };
    if let Some(local) = local {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str("local ");
        text.push_str(local);
    }
    text
}

/// The newest first.
fn errors(status: &Status) -> Vec<&UpstreamError> {
    let mut errors: Vec<_> = status.recent_errors.iter().collect();
    if errors.is_empty() {
        errors.extend(&status.last_upstream_error);
    }
    errors.reverse();
    errors.truncate(MAX_ERRORS);
    errors
}

fn error_line<'a>(error: &UpstreamError, now: i64) -> Line<'a> {
    let resource = error
        .resource
        .as_deref()
        .map(|resource| format!("{}: ", plain(resource)))
        .unwrap_or_default();
    Line::from(format!(
        "{} ago  {}  {resource}{}",
        span(now.saturating_sub(error.at)),
        error.code,
        plain(&error.message)
    ))
}

/// At most `width` characters, with a sign where some are missing.
fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(3)).collect();
    short.push_str("...");
    short
}

#[cfg(test)]
mod tests;
