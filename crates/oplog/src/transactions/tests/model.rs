//! Random interleavings of transactions, against what their script says.

use proptest::prelude::*;

use super::*;

/// What a session does, one after the other.
#[derive(Debug, Clone)]
enum Act {
    Write,
    /// Some parts, then the last of them commits, or an end is missing.
    Unprepared {
        parts: usize,
        ends: bool,
    },
    /// Some parts, the prepare; then, unless it is never ended, a commit (`Some` of how far back from its
    /// entry the commit time lies) or an abort.
    Prepared {
        parts: usize,
        commit: Option<u32>,
    },
}

/// What a transaction did, by the script.
#[derive(Debug, Clone, Default)]
struct Told {
    session: i32,
    number: i64,
    first: Option<OpTime>,
    last: Option<OpTime>,
    prepared: Option<OpTime>,
    end: Option<(OpTime, Option<Outcome>)>,
}

impl Told {
    fn open_after(&self, time: ClusterTime) -> bool {
        self.first.is_some_and(|first| first.time <= time) && self.end.is_none_or(|(end, _)| end.time > time)
    }
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        1 => Just(Act::Write),
        2 => (0..3_usize, prop::bool::weighted(0.8)).prop_map(|(parts, ends)| Act::Unprepared { parts, ends }),
        4 => (0..3_usize, prop::option::weighted(0.7, 0..8_u32))
            .prop_map(|(parts, commit)| Act::Prepared { parts, commit }),
    ]
}

/// The entries, and what happened in them: the sessions' acts, a session chosen at random for each entry.
/// A prepared transaction whose session's turn does not come again stays open.
fn play(sessions: &[Vec<Act>], turns: &[prop::sample::Index]) -> (Vec<(OpTime, Vec<u8>)>, Vec<Told>) {
    let mut todo: Vec<(usize, usize)> = vec![(0, 0); sessions.len()];
    let (mut entries, mut told) = (Vec::new(), Vec::<Told>::new());
    for (turn, index) in turns.iter().enumerate() {
        let now = at(turn as u32 + 1);
        let who = index.index(sessions.len());
        let (session, (act, done)) = (who as i32, &mut todo[who]);
        let Some(doing) = sessions[who].get(*act) else { continue };
        let number = *act as i64 + 1;
        if *done == 0 {
            // What came before it in the session has ended by now.
            for before in told.iter_mut().filter(|one| one.session == session && one.end.is_none()) {
                before.end = Some((now, None));
            }
            told.push(Told { session, number, ..Told::default() });
        }
        let one = told.iter_mut().rfind(|one| one.session == session).unwrap();
        let (what, last_step) = match *doing {
            Act::Write => (None, true),
            Act::Unprepared { parts, ends } if *done < parts => (Some(What::Part), *done + 1 == parts && !ends),
            Act::Unprepared { .. } => (Some(What::Whole), true),
            Act::Prepared { parts, .. } if *done < parts => (Some(What::Part), false),
            Act::Prepared { parts, .. } if *done == parts => (Some(What::Prepare), false),
            Act::Prepared { commit: None, .. } => (Some(What::Abort), true),
            Act::Prepared { commit: Some(back), .. } => {
                let prepared = one.prepared.unwrap().time;
                let commit = ClusterTime::new(100, now.time.increment.saturating_sub(back)).max(prepared);
                (Some(What::Commit(commit)), true)
            }
        };
        let Some(what) = what else {
            told.pop();
            entries.push((now, write(now, session, number)));
            (*act, *done) = (*act + 1, 0);
            continue;
        };
        entries.push((now, step(now, session, number, one.last, what)));
        one.first.get_or_insert(now);
        match what {
            What::Part => one.last = Some(now),
            What::Prepare => (one.last, one.prepared) = (Some(now), Some(now)),
            What::Whole => one.end = Some((now, Some(Outcome::Committed(now.time)))),
            What::Commit(time) => one.end = Some((now, Some(Outcome::Committed(time)))),
            What::Abort => one.end = Some((now, Some(Outcome::Aborted))),
        }
        (*act, *done) = if last_step { (*act + 1, 0) } else { (*act, *done + 1) };
    }
    (entries, told)
}

fn open_after(told: &[Told], time: ClusterTime) -> Vec<OpenTransaction> {
    let mut open: Vec<_> = told
        .iter()
        .filter(|one| one.open_after(time))
        .map(|one| OpenTransaction {
            session: hex::encode(doc! {"id": one.session}.to_vec().unwrap()),
            number: one.number,
            first: one.first.unwrap(),
            last: one.last.unwrap(),
            prepared: one.prepared.map(|prepared| prepared.time),
        })
        .collect();
    open.sort_by_key(|one| one.first);
    open
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_table_and_the_cut_are_as_the_script_says(
        sessions in prop::collection::vec(prop::collection::vec(act(), 1..6), 1..5),
        turns in prop::collection::vec(any::<prop::sample::Index>(), 1..60),
        t in 0..64_u32,
        from in any::<prop::sample::Index>(),
    ) {
        let (entries, told) = play(&sessions, &turns);
        let t = at(t).time;

        // The table, after every entry; and it goes on from any place as if it had come from the beginning.
        let mut table = table();
        let mut opens = vec![Vec::new()];
        for (place, bytes) in &entries {
            let end = table.see(&Entry::read(bytes).unwrap()).unwrap();
            let said = told.iter().find(|one| one.end.is_some_and(|(end, what)| end == *place && what.is_some()));
            prop_assert_eq!(end.map(|end| (Some(end.first), end.prepared, Some(end.outcome))), said.map(|one| {
                (one.first, one.prepared.map(|prepared| prepared.time), one.end.unwrap().1)
            }));
            // What the script said up to then: a later entry may end what is open now.
            let (_, told) = play(&sessions, &turns[..place.time.increment as usize]);
            let open = open_after(&told, place.time);
            prop_assert_eq!(table.open(), open.clone());
            prop_assert_eq!(table.oldest(), open.first().map(|one| one.first));
            opens.push(open);
        }

        // The cut, read from a place at or before T.
        let before = entries.iter().filter(|(place, _)| place.time <= t).count();
        let from = from.index(before + 1);
        let rest = entries[from..].iter().map(|(_, bytes)| Ok::<_, Failed>(bytes));
        let found = Unresolved::at(t, opens[from].clone(), ClusterTime::new(0, 0), rest).unwrap();
        let mut cut: Vec<_> = told
            .iter()
            .filter(|one| one.prepared.is_some_and(|prepared| prepared.time <= t) && one.open_after(t))
            .collect();
        cut.sort_by_key(|one| one.first);
        let said: Vec<_> =
            cut.iter().map(|one| (one.first.unwrap(), one.number, one.end.map(|(end, what)| (end, what.unwrap())))).collect();
        let read: Vec<_> = found
            .transactions
            .iter()
            .map(|one| (one.first, one.number, one.ending.map(|ending| (ending.at, ending.outcome))))
            .collect();
        prop_assert_eq!(read, said.clone());
        prop_assert_eq!(found.oldest, opens[before].first().map(|one| one.first));
        let pending = said.iter().filter(|(.., end)| end.is_none()).count();
        prop_assert_eq!(found.pending().count(), pending);
        let until = said.iter().filter_map(|(.., end)| end.map(|(end, _)| end)).max();
        prop_assert_eq!(found.until(), until);
        // No more is read than is needed.
        if pending == 0 {
            let first_after = entries.get(before).map(|(place, _)| *place);
            prop_assert!(!found.passed() || found.read <= until.max(first_after));
        }
        let committed = cut.iter().filter(|one| matches!(one.end, Some((_, Some(Outcome::Committed(time)))) if time <= t));
        prop_assert_eq!(
            found.committed().map(|(one, _)| one.first).collect::<Vec<_>>(),
            committed.map(|one| one.first.unwrap()).collect::<Vec<_>>()
        );
    }
}
