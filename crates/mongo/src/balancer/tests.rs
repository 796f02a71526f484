//! Who changed what, and what is to be written: every case without a cluster. That a real server
//! writes such entries is shown by the tests on real clusters.

use bson::{Document, doc};
use stillpoint_core::ClusterTime;

use super::history::{Change, Ours, Verdict, What, judge, parse};
use super::put_back::{Write, plan};
use super::settings::{Fields, Settings, Switch, running};

const US: &str = "10.0.0.1:40000";
const OPERATOR: &str = "10.0.0.9:50000";

/// Oplog entries of the config servers, at the times 1, 2, 3…
fn changes(entries: &[Document]) -> Vec<Change> {
    let mut changes = Vec::new();
    for (n, entry) in entries.iter().enumerate() {
        parse(entry, ClusterTime::new(1, n as u32 + 1), &mut changes).unwrap();
    }
    changes
}

fn set(id: &str, diff: Document) -> Document {
    doc! {"op": "u", "ns": "config.settings", "o": {"$v": 2, "diff": diff}, "o2": {"_id": id}}
}

fn insert(document: Document) -> Document {
    doc! {"op": "i", "ns": "config.settings", "o": document.clone(), "o2": {"_id": document.get("_id").cloned()}}
}

fn logged(what: &str, from: &str) -> Document {
    doc! {"op": "i", "ns": "config.actionlog", "o": {"_id": "x", "what": what, "clientAddr": from}}
}

/// What a stop of a balancer that was on writes, as MongoDB 6.0 does.
fn stop_entries(from: &str) -> Vec<Document> {
    vec![
        set("balancer", doc! {"u": {"mode": "off", "stopped": true}}),
        set("autosplit", doc! {"u": {"enabled": false}}),
        logged("balancer.stop", from),
    ]
}

fn start_entries(from: &str) -> Vec<Document> {
    vec![
        set("balancer", doc! {"u": {"mode": "full", "stopped": false}}),
        set("autosplit", doc! {"u": {"enabled": true}}),
        logged("balancer.start", from),
    ]
}

fn on() -> Settings {
    Settings {
        balancer: Some(doc! {"_id": "balancer", "mode": "full", "stopped": false}),
        autosplit: Some(doc! {"_id": "autosplit", "enabled": true}),
    }
}

fn ours() -> Ours {
    Ours { addresses: vec![US.into()], answered: false }
}

fn verdict(found: &Settings, entries: &[Vec<Document>]) -> Verdict {
    judge(found, &changes(&entries.concat()), &ours()).unwrap()
}

fn intends_to_run(verdict: &Verdict) -> bool {
    running(&verdict.intended[0].1).unwrap()
}

#[test]
fn the_servers_rule_of_when_a_balancer_runs() {
    let runs = |document: Document| running(&Fields::of(Switch::Balancer, Some(&document)));
    assert!(running(&Fields::of(Switch::Balancer, None)).unwrap());
    assert!(runs(doc! {"_id": "balancer"}).unwrap());
    assert!(runs(doc! {"mode": "full", "stopped": false}).unwrap());
    assert!(runs(doc! {"mode": "autoSplitOnly"}).unwrap());
    assert!(!runs(doc! {"mode": "off"}).unwrap());
    assert!(!runs(doc! {"mode": "off", "stopped": false}).unwrap());
    assert!(!runs(doc! {"stopped": true}).unwrap());
    assert!(!runs(doc! {"mode": "full", "stopped": true}).unwrap());
    for unknown in [doc! {"mode": "weird"}, doc! {"mode": 1}, doc! {"stopped": "yes"}] {
        assert!(runs(unknown.clone()).is_err(), "{unknown}");
    }
}

#[test]
fn settings_read_back_from_a_record_field_for_field() {
    let settings = Settings {
        balancer: Some(doc! {
            "_id": "balancer", "stopped": false, "mode": "full", "extra": 7i64, "when": bson::DateTime::from_millis(0),
            "activeWindow": {"stop": "05:00", "start": "01:00"},
        }),
        autosplit: None,
    };
    assert_eq!(Settings::from_text(&settings.to_text()).unwrap(), settings);
    assert!(Settings::from_text("{}").is_err());
    assert!(Settings::from_text("nonsense").is_err());
}

#[test]
fn our_own_stop_changes_nothing_of_what_is_intended() {
    let verdict = verdict(&on(), &[stop_entries(US)]);
    assert!(Switch::BOTH.iter().zip(&verdict.intended).all(|(switch, (_, fields))| *fields == on().fields(*switch)));
    assert!(verdict.started.is_empty());
}

#[test]
fn our_own_stop_of_a_balancer_that_was_never_configured_is_known_too() {
    let entries = [
        doc! {"op": "c", "ns": "config.$cmd", "o": {"create": "settings"}},
        insert(doc! {"_id": "balancer", "mode": "off", "stopped": true}),
        insert(doc! {"_id": "autosplit", "enabled": false}),
        logged("balancer.stop", US),
    ];
    // The query of the oplog does not match the creation of the collection.
    let verdict = verdict(&Settings::default(), &[entries[1..].to_vec()]);
    assert!(verdict.intended.iter().all(|(_, fields)| fields.are_absent()));
}

#[test]
fn a_stop_of_ours_that_never_ended_is_known_by_its_changes() {
    let entries = stop_entries(US)[..2].to_vec();
    assert!(intends_to_run(&verdict(&on(), &[entries])));
}

#[test]
fn an_operators_stop_stays_before_during_and_after_ours() {
    // Before ours: then ours changes nothing, and only says so in the action log.
    assert!(!intends_to_run(&verdict(&on(), &[stop_entries(OPERATOR), vec![logged("balancer.stop", US)]])));
    // After ours: then theirs does.
    assert!(!intends_to_run(&verdict(&on(), &[stop_entries(US), vec![logged("balancer.stop", OPERATOR)]])));
    // After ours that never ended.
    let ours = stop_entries(US)[..2].to_vec();
    assert!(!intends_to_run(&verdict(&on(), &[ours, vec![logged("balancer.stop", OPERATOR)]])));
}

#[test]
fn an_operators_start_stays_and_is_told() {
    let verdict = verdict(&on(), &[stop_entries(US), start_entries(OPERATOR)]);
    assert!(intends_to_run(&verdict));
    assert_eq!(verdict.started, [ClusterTime::new(1, 4)]);
}

#[test]
fn the_last_of_several_changes_by_others_counts() {
    let entries = [stop_entries(US), start_entries(OPERATOR), stop_entries(OPERATOR)];
    assert!(!intends_to_run(&verdict(&on(), &entries)));
    let entries = [stop_entries(US), start_entries(OPERATOR), stop_entries(OPERATOR), start_entries(OPERATOR)];
    assert!(intends_to_run(&verdict(&on(), &entries)));
}

#[test]
fn an_edit_by_hand_counts_too() {
    let off = set("balancer", doc! {"u": {"mode": "off"}, "d": {"stopped": false}});
    let started = set("balancer", doc! {"u": {"mode": "full", "stopped": false}});
    // Switched on, then off by hand, with no command and so no entry in the action log.
    let entries = [stop_entries(US), vec![started], vec![off]];
    let verdict = verdict(&on(), &entries);
    assert_eq!(verdict.intended[0].1, Fields(vec![Some("off".into()), None]));
}

#[test]
fn an_earlier_putting_back_is_one_more_change() {
    let put_back = vec![set("balancer", doc! {"u": {"mode": "full", "stopped": false}})];
    assert!(intends_to_run(&verdict(&on(), &[stop_entries(US), put_back.clone()])));
    assert!(!intends_to_run(&verdict(&on(), &[stop_entries(US), put_back, stop_entries(OPERATOR)])));
}

#[test]
fn a_change_of_other_fields_is_nobodys_business() {
    let window = set("balancer", doc! {"i": {"activeWindow": {"start": "01:00", "stop": "05:00"}}});
    let inside = set("balancer", doc! {"sactiveWindow": {"u": {"start": "02:00"}}});
    let verdict = verdict(&on(), &[stop_entries(US), vec![window, inside]]);
    assert_eq!(verdict.intended[0].1, on().fields(Switch::Balancer));
}

#[test]
fn a_server_without_an_auto_splitter_gets_no_document_for_it() {
    let found = Settings { autosplit: None, ..on() };
    let ours = vec![set("balancer", doc! {"u": {"mode": "off", "stopped": true}}), logged("balancer.stop", US)];
    let verdict = verdict(&found, &[ours, vec![logged("balancer.stop", OPERATOR)]]);
    assert!(verdict.intended[1].1.are_absent());
}

#[test]
fn changes_in_a_transaction_a_replacement_and_older_modifiers_are_read() {
    let inner = set("balancer", doc! {"u": {"mode": "off", "stopped": true}});
    let transaction =
        doc! {"op": "c", "ns": "admin.$cmd", "o": {"applyOps": [inner, {"op": "i", "ns": "a.b", "o": {"_id": 1}}]}};
    assert_eq!(changes(&[transaction]).len(), 1);

    let replaced =
        doc! {"op": "u", "ns": "config.settings", "o": {"_id": "balancer", "mode": "off"}, "o2": {"_id": "balancer"}};
    let older = doc! {
        "op": "u", "ns": "config.settings", "o2": {"_id": "balancer"},
        "o": {"$v": 1, "$set": {"mode": "off"}, "$unset": {"stopped": true}},
    };
    for entry in [replaced, older] {
        let verdict = verdict(&on(), &[vec![entry]]);
        assert_eq!(verdict.intended[0].1, Fields(vec![Some("off".into()), None]));
    }

    let dropped = doc! {"op": "c", "ns": "config.$cmd", "o": {"drop": "settings"}};
    let chunk_size = insert(doc! {"_id": "chunksize", "value": 64});
    assert!(verdict(&on(), &[vec![dropped]]).intended.iter().all(|(_, fields)| fields.are_absent()));
    assert!(changes(&[chunk_size]).is_empty());
}

#[test]
fn an_entry_that_is_not_understood_is_an_error_with_its_position() {
    let strange = [
        set("balancer", doc! {"x": 1}),
        doc! {"op": "u", "ns": "config.settings", "o": {"$v": 3, "diff": {}}, "o2": {"_id": "balancer"}},
        doc! {"op": "u", "ns": "config.settings", "o": {"$push": {"a": 1}}, "o2": {"_id": "balancer"}},
        doc! {"op": "c", "ns": "config.$cmd", "o": {"renameCollection": "config.settings", "to": "config.other"}},
        doc! {"op": "?", "ns": "config.settings", "o": {"_id": "balancer"}},
    ];
    for entry in strange {
        let error = parse(&entry, ClusterTime::new(7, 8), &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("7:8"), "{error}");
    }
}

#[test]
fn only_what_differs_is_written_and_nothing_else_is_lost() {
    let window = doc! {"start": "01:00", "stop": "05:00"};
    let found = doc! {"_id": "balancer", "stopped": false, "activeWindow": window.clone()};
    let held = doc! {"_id": "balancer", "stopped": true, "activeWindow": window, "mode": "off"};
    let intended = Fields::of(Switch::Balancer, Some(&found));
    let write = plan(Switch::Balancer, Some(&found), &intended, Some(&held));
    assert_eq!(write, Some(Write::Update { switch: Switch::Balancer, was: held, to: intended.clone() }));
    assert_eq!(plan(Switch::Balancer, Some(&found), &intended, Some(&found)), None);
}

#[test]
fn a_document_that_was_not_there_is_removed_unless_somebody_else_put_something_into_it() {
    let absent = Fields::of(Switch::Balancer, None);
    let held = doc! {"_id": "balancer", "mode": "off", "stopped": true};
    let write = plan(Switch::Balancer, None, &absent, Some(&held));
    assert_eq!(write, Some(Write::Delete { switch: Switch::Balancer, was: held.clone() }));

    let mut edited = held;
    edited.insert("activeWindow", doc! {"start": "01:00"});
    let write = plan(Switch::Balancer, None, &absent, Some(&edited));
    assert_eq!(write, Some(Write::Update { switch: Switch::Balancer, was: edited, to: absent.clone() }));
    assert_eq!(plan(Switch::Balancer, None, &absent, None), None);
}

#[test]
fn a_command_without_an_address_is_somebody_elses() {
    let action = doc! {"op": "i", "ns": "config.actionlog", "o": {"_id": "x", "what": "balancer.stop"}};
    let seen = changes(&[action]);
    assert_eq!(seen[0].what, What::Command { stop: true, from: String::new() });
    assert!(!intends_to_run(&judge(&on(), &seen, &ours()).unwrap()));
}

#[test]
fn a_balancer_that_was_off_is_as_others_left_it_whatever_that_looks_like() {
    let off = Settings { balancer: Some(doc! {"_id": "balancer", "mode": "off", "stopped": true}), ..on() };
    // Started by a command, then stopped by one that has not ended yet.
    let entries = [start_entries(OPERATOR), stop_entries(OPERATOR)[..2].to_vec()];
    let verdict = judge(&off, &changes(&entries.concat()), &Ours::none()).unwrap();
    assert!(!intends_to_run(&verdict));
    assert_eq!(verdict.started.len(), 1);
}

#[test]
fn another_stillpoints_stop_is_left_out_as_ours_is() {
    let hold = doc! {"op": "n", "ns": "", "o": {"stillpoint": "hold", "from": OPERATOR}};
    let entries = [stop_entries(US), vec![hold.clone(), logged("balancer.stop", OPERATOR)]];
    assert!(intends_to_run(&verdict(&on(), &entries)));
    let entries = [vec![hold], stop_entries(OPERATOR), vec![logged("balancer.stop", US)]];
    assert!(intends_to_run(&verdict(&on(), &entries)));
}

#[test]
fn a_stop_that_was_answered_is_known_even_if_it_is_logged_under_another_address() {
    let answered = Ours { answered: true, ..ours() };
    let other = "10.0.0.1";
    let judged = |entries: &[Vec<Document>]| judge(&on(), &changes(&entries.concat()), &answered).unwrap();
    assert!(intends_to_run(&judged(&[stop_entries(other)])));
    assert!(!intends_to_run(&judged(&[stop_entries(other), vec![logged("balancer.stop", OPERATOR)]])));
}
