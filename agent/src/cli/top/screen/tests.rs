use jobcred_wire::{CallerStatus, ErrorCode, PrincipalClaims, Status, TokenStatus, UpstreamError};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::super::view::View;
use super::{draw, rank};
use crate::platform::Environment;

const NOW: i64 = 100_000;

fn busy() -> Status {
    Status {
        version: "1.2.3".to_owned(),
        pid: 42,
        strategy: "compute-identity".to_owned(),
        started_on: NOW - 3_600,
        leases: 8,
        ready: true,
        runway: Some(43_200),
        principal: Some(PrincipalClaims {
            object_id: Some("11111111-2222-3333-4444-555555555555".to_owned()),
            ..PrincipalClaims::default()
        }),
        tokens: vec![TokenStatus {
            kind: "token".to_owned(),
            identity: "default".to_owned(),
            resource: "https://storage.azure.com".to_owned(),
            obtained_on: Some(NOW - 43_200),
            expires_on: Some(NOW + 43_200),
            refresh_on: Some(NOW + 60),
            hits: 640,
            fetches: 3,
            failures: 1,
            ..TokenStatus::default()
        }],
        callers: (0..64)
            .map(|rank| CallerStatus {
                uid: 1000,
                pid: Some(5_000 + rank),
                requests: 10,
                last_seen_on: NOW - 2,
                name: Some("python".to_owned()),
                ranks: [("RANK", rank), ("WORLD_SIZE", 64), ("LOCAL_RANK", rank % 8)]
                    .map(|(name, value)| (name.to_owned(), value.to_string()))
                    .into(),
                ended: rank == 1,
            })
            .collect(),
        recent_errors: vec![UpstreamError {
            code: ErrorCode::Transient,
            message: "busy\u{1b}[2J".to_owned(),
            at: NOW - 30,
            hint: None,
            issuer_code: None,
            resource: None,
        }],
        throttles: 5,
        ..Status::default()
    }
}

fn picture(view: &View, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, view, NOW)).unwrap();
    terminal.backend().to_string()
}

#[test]
fn everything_is_on_the_screen() {
    let mut view = View::new(&Environment::from([("LANG", "C.UTF-8")]));
    view.learn(busy());
    let text = picture(&view, 110, 30);
    for part in [
        "jobcred 1.2.3   pid 42   up 1 h   compute-identity   leases 8",
        "object id 11111111-2222-3333-4444-555555555555",
        "runway 12 h   throttled 5   denied 0",
        "https://storage.azure.com",
        "██████████░░░░░░░░░░ 12 h left, renewed in 1 min   640 from memory   2 fetched   1 failed",
        "callers: 64",
        "python           0 of 64, local 0   10             2 s ago",
        "1 of 64, local 1   10             2 s ago, ended",
        "30 s ago  transient  busy [2J",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn an_agent_that_gives_no_tokens_misses_none() {
    let mut view = View::default();
    view.learn(Status::default());
    let text = picture(&view, 110, 30);
    assert!(
        text.contains("NOT READY: this agent gives no tokens"),
        "{text}"
    );
}

#[test]
fn a_plain_terminal_gets_plain_characters() {
    let mut view = View::new(&Environment::from([("LANG", "C")]));
    view.learn(busy());
    let text = picture(&view, 110, 30);
    assert!(text.contains("##########.......... 12 h left"), "{text}");
    assert!(text.is_ascii(), "{text}");
}

#[test]
fn what_is_new_since_the_last_look_is_said_and_what_is_old_too() {
    let mut view = View::default();
    view.learn(busy());
    let mut later = busy();
    later.tokens[0].hits += 12;
    later.callers[0].requests += 3;
    view.learn(later);
    let text = picture(&view, 110, 30);
    assert!(text.contains("652 from memory (+12)"), "{text}");
    assert!(text.contains("13 (+3)"), "{text}");
    view.trouble = Some("no agent answers".to_owned());
    assert!(picture(&view, 110, 30).contains("OLD: no agent answers; trying again"));
}

#[test]
fn no_size_of_terminal_and_no_state_of_the_agent_is_too_odd() {
    let mut odd = busy();
    odd.tokens[0].expires_on = Some(i64::MIN);
    odd.tokens[0].obtained_on = Some(i64::MAX);
    odd.started_on = i64::MIN;
    odd.callers[0].last_seen_on = i64::MAX;
    odd.recent_errors[0].at = i64::MIN;
    for status in [Status::default(), busy(), odd] {
        let mut view = View::default();
        view.learn(status);
        view.skipped = 60;
        for (width, height) in [(1, 1), (10, 3), (40, 8), (80, 24), (300, 100)] {
            picture(&view, width, height);
        }
    }
}

#[test]
fn ranks_of_every_launcher_are_understood() {
    let named = |pairs: &[(&str, &str)]| CallerStatus {
        ranks: pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..CallerStatus::default()
    };
    assert_eq!(rank(&named(&[])), "");
    assert_eq!(rank(&named(&[("LOCAL_RANK", "2")])), "local 2");
    assert_eq!(rank(&named(&[("SLURM_PROCID", "9")])), "9");
    assert_eq!(
        rank(&named(&[
            ("OMPI_COMM_WORLD_RANK", "3"),
            ("OMPI_COMM_WORLD_SIZE", "8")
        ])),
        "3 of 8"
    );
}
