use std::hint::black_box;

use super::*;

/// The counters of this very process, where it may have them.
fn own(what: &str) -> Option<Counters> {
    let counters = Counters::attach(std::process::id()).unwrap();
    let missing = counters.missing().find(|(name, _)| *name == what);
    if let Some((name, why)) = missing {
        eprintln!("skipped: needs to count {name}: {why}");
        return None;
    }
    Some(counters)
}

#[test]
fn system_calls_are_counted() {
    let Some(mut counters) = own("system calls") else {
        return;
    };
    let before = counters.read().unwrap();
    for _ in 0..100 {
        assert!(fs::metadata("/").is_ok());
    }
    let came = counters.read().unwrap().since(before).syscalls.unwrap();
    assert!(came >= 100, "{came}");
}

#[test]
fn allocations_are_counted() {
    let Some(mut counters) = own("allocations") else {
        return;
    };
    let before = counters.read().unwrap();
    for n in 0..100 {
        black_box(Box::new(n));
    }
    let came = counters.read().unwrap().since(before).allocations.unwrap();
    assert!(came >= 100, "{came}");
}

#[test]
fn what_was_not_counted_has_no_difference() {
    let totals = |syscalls, allocations| Totals {
        syscalls,
        allocations,
    };
    let difference = totals(Some(5), None).since(totals(Some(2), None));
    assert_eq!(difference, totals(Some(3), None));
}

#[test]
fn threads_that_came_later_are_counted_where_they_are_looked_for() {
    let Some(mut counters) = own("system calls") else {
        return;
    };
    let (begin, began) = std::sync::mpsc::channel::<()>();
    let (done, end) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        began.recv().unwrap();
        for _ in 0..100 {
            assert!(fs::metadata("/").is_ok());
        }
        done.send(()).unwrap();
        // Alive until it was read.
        let _ = began.recv();
    });
    counters.follow_new_threads().unwrap();
    let before = counters.read().unwrap();
    begin.send(()).unwrap();
    end.recv().unwrap();
    let came = counters.read().unwrap().since(before).syscalls.unwrap();
    drop(begin);
    thread.join().unwrap();
    assert!(came >= 100, "{came}");
}
