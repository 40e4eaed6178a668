//! `set_threads` changes the environment only while no other thread runs.
//!
//! A program of its own, since the harness of other tests starts threads: it runs each case below in
//! a new process, whose first thread is the only one.

use std::process::Command;

use adavit_kernels::{MOST_THREADS, set_threads, threads};
use candle_core::utils::get_num_threads;

/// Names the case that a process is to run.
const CASE: &str = "ADAVIT_TEST_CASE";
const THREADS: &str = "RAYON_NUM_THREADS";
const VARIABLES: [(&str, &str); 3] = [
    (THREADS, "3"),
    ("CANDLE_NUM_THREADS", "3"),
    ("CANDLE_BARRIER_POOL_SPIN_LIMIT", "7"),
];

type Case = (&'static str, fn());
const CASES: [Case; 5] = [
    ("every_pool_gets_the_number", every_pool_gets_the_number),
    (
        "another_thread_is_an_error_that_changes_nothing",
        another_thread_is_an_error_that_changes_nothing,
    ),
    (
        "variables_that_are_set_already_suffice",
        variables_that_are_set_already_suffice,
    ),
    ("a_second_call_is_an_error", a_second_call_is_an_error),
    (
        "numbers_out_of_range_are_errors",
        numbers_out_of_range_are_errors,
    ),
];

fn every_pool_gets_the_number() {
    set_threads(3).expect("no other thread runs");
    assert_eq!((threads(), get_num_threads()), (3, 3));
    for (name, value) in &VARIABLES[..2] {
        assert_eq!(std::env::var(name).as_deref(), Ok(*value));
    }
    let limit = std::env::var("CANDLE_BARRIER_POOL_SPIN_LIMIT");
    assert_eq!(limit.as_deref(), Ok("0"));
}

/// Runs `f` while a second thread waits.
fn beside_a_thread(f: impl FnOnce()) {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || receiver.recv());
    f();
    sender.send(()).expect("the thread waits");
    let received = other.join().expect("it does not panic");
    received.expect("it gets the message");
}

fn another_thread_is_an_error_that_changes_nothing() {
    beside_a_thread(|| {
        let error = set_threads(3).expect_err("another thread runs").to_string();
        assert!(error.contains("expected no other thread"), "{error}");
        assert!(error.contains("RAYON_NUM_THREADS=3"), "{error}");
        for (name, _) in VARIABLES {
            assert_eq!(std::env::var_os(name), None, "{name}");
        }
    });
}

fn variables_that_are_set_already_suffice() {
    let this = std::env::current_exe().expect("the test has a path");
    if std::env::var_os(THREADS).is_none() {
        let mut command = Command::new(this);
        let status = command.envs(VARIABLES).status().expect("the test starts");
        assert!(status.success());
        return;
    }
    beside_a_thread(|| {
        set_threads(3).expect("nothing is left to set");
        assert_eq!((threads(), get_num_threads()), (3, 3));
        // A limit of the user's own stays.
        let limit = std::env::var("CANDLE_BARRIER_POOL_SPIN_LIMIT");
        assert_eq!(limit.as_deref(), Ok("7"));
    });
}

fn a_second_call_is_an_error() {
    set_threads(2).expect("no other thread runs");
    // The pool's threads run now.
    assert!(set_threads(2).is_err());
    assert!(set_threads(3).is_err());
    assert_eq!(threads(), 2);
}

fn numbers_out_of_range_are_errors() {
    for n in [0, MOST_THREADS + 1] {
        let error = set_threads(n).expect_err("out of range").to_string();
        assert!(error.contains(&format!("found {n}")), "{error}");
    }
}

fn main() {
    if let Ok(name) = std::env::var(CASE) {
        let case = CASES.iter().find(|(case, _)| *case == name);
        let (_, run) = case.expect("a case of this test");
        return run();
    }
    // Elsewhere the environment stays as it is.
    if !cfg!(target_os = "linux") {
        return;
    }
    for (name, _) in CASES {
        let this = std::env::current_exe().expect("the test has a path");
        let mut command = Command::new(this);
        command.env(CASE, name);
        for (variable, _) in VARIABLES {
            command.env_remove(variable);
        }
        let status = command.status().expect("the test starts");
        assert!(status.success(), "{name}: {status}");
    }
}
