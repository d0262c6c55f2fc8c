//! Upstream's cases of taking CPUs: machine, manner, free CPUs, how many, and what is taken.

use super::distribute::distributed;
use super::take::{Manner, packed};
use super::tests::{machine, set};

const PACKED: &[(&str, &str, &str, usize, &str)] = &[
    ("single-ht", "", "0-7", 0, ""),
    ("single-ht", "", "0-7", 1, "0"),
    ("single-ht", "", "1,3,5-7", 1, "6"),
    ("single-ht", "", "0-7", 2, "0,4"),
    ("single-ht", "", "0-7", 8, "0-7"),
    ("single-ht", "", "0-3,6", 2, "2,6"),
    ("dual-ht", "", "0-11", 6, "0,2,4,6,8,10"),
    ("numas-ht", "", "0-79", 40, "0-19,40-59"),
    ("numas-ht", "", "0-79", 20, "0-9,40-49"),
    ("numas-ht", "", "10-39,50-79", 20, "10-19,50-59"),
    ("numas-ht", "", "0-79", 60, "0-29,40-69"),
    ("dual-ht", "", "1-5,7-11", 1, "2"),
    ("dual-ht", "", "0-11", 8, "0,6,2,8,4,10,1,7"),
    ("numas-ht", "", "0-79", 64, "0-29,40-69,30,31,70,71"),
    ("uncore-single", "uncore", "1-15", 10, "1-2,4-11"),
    ("dual-ht", "uncore", "1-5,7-11", 1, "1"),
    ("uncore-dual", "uncore", "0-15", 4, "0-3"),
    ("uncore-dual", "uncore", "2-15", 6, "2-7"),
    ("uncore-dual", "uncore", "8-15", 4, "8-11"),
    ("uncore-numas", "uncore", "3,4-8,12", 2, "4-5"),
    ("uncore-ht", "uncore", "2-3,10-11,4-7,12-15", 6, "4-6,12-14"),
    ("uncore-ht", "uncore", "1-7,9-15", 10, "4-7,12-15,1,9"),
    ("single-ht", "spread", "0-7", 3, "0-2"),
    ("dual-ht", "spread", "0-11", 2, "0,2"),
    ("dual-ht", "spread", "0-11", 3, "0,2,4"),
    ("dual-ht", "spread", "0-11", 6, "0,2,4,6,8,10"),
    ("dual-ht", "spread", "0-11", 8, "0-4,6,8,10"),
    ("dual", "spread", "0-7", 2, "0-1"),
    ("quad-four-way", "spread", "0-287", 12, "0-2,9-10,13-14,21-22,25-26,33"),
];

/// With the size of groups after the number.
const DISTRIBUTED: &[(&str, &str, usize, usize, &str)] = &[
    ("single-ht", "0-7", 0, 1, ""),
    ("single-ht", "0-7", 1, 1, "0"),
    ("single-ht", "1,3,5-7", 1, 1, "6"),
    ("single-ht", "0-7", 2, 1, "0,4"),
    ("single-ht", "0-7", 8, 1, "0-7"),
    ("single-ht", "0-3,6", 2, 1, "2,6"),
    ("dual-ht", "0-11", 6, 1, "0,2,4,6,8,10"),
    ("numas-ht", "0-79", 40, 1, "0-19,40-59"),
    ("numas-ht", "0-79", 20, 1, "0-9,40-49"),
    ("numas-ht", "10-39,50-79", 20, 1, "10-19,50-59"),
    ("numas-ht", "0-79", 60, 1, "0-29,40-69"),
    ("dual-ht", "0-11", 8, 1, "0,6,2,8,1,7,3,9"),
    ("numas-ht", "0-79", 64, 1, "0-7,10-17,20-27,30-37,40-47,50-57,60-67,70-77"),
    ("numas-ht", "0-79", 48, 1, "0-7,10-17,20-27,40-47,50-57,60-67"),
    ("numas-ht", "1-29,32-39,41-69,72-79", 48, 1, "1-8,10-17,20-27,41-48,50-57,60-67"),
    ("numas-ht", "2-29,31-39,42-69,71-79", 48, 1, "10-17,20-27,31-38,50-57,60-67,71-78"),
    (
        "numas-ht",
        "0-2,10-12,20-22,30-32,40-41,50-51,60-61,70-71",
        16,
        1,
        "0-1,10-11,20-21,30-31,40-41,50-51,60-61,70-71",
    ),
    (
        "numas-ht",
        "0-2,10-12,20-22,30-32,40-41,50-51,60-61,70-71",
        16,
        1,
        "0-1,10-11,20-21,30-31,40-41,50-51,60-61,70-71",
    ),
    ("dual-ht", "1-5,7-11", 1, 1, "1"),
    ("dual-ht", "1-5,7-11", 1, 2, "2"),
    ("numas-ht", "0-79", 26, 1, "0-6,10-16,40-45,50-55"),
    ("numas-ht", "0-79", 26, 2, "0-6,10-15,40-46,50-55"),
    ("numas-ht", "0-79", 62, 1, "0-7,10-17,20-27,30-37,40-47,50-57,60-66,70-76"),
    ("numas-ht", "0-79", 62, 2, "0-7,10-17,20-27,30-36,40-47,50-57,60-67,70-76"),
    ("numas-ht", "0-8,10-18,20-39,40-48,50-58,60-79", 62, 1, "0-7,10-17,20-27,30-37,40-46,50-56,60-67,70-77"),
    ("numas-ht", "0-8,10-18,20-39,40-48,50-58,60-79", 62, 2, "0-7,10-16,20-27,30-37,40-47,50-56,60-67,70-77"),
    (
        "numas-ht",
        "0-3,10-13,20-23,30-36,40-43,50-53,60-63,70-76",
        34,
        1,
        "0-3,10-13,20-23,30-34,40-43,50-53,60-63,70-74",
    ),
    (
        "numas-ht-large",
        "0,128,30,31,158,159,43-47,171-175,62,63,190,191,75-79,203-207,94,96,222,223,101-111,229-239,126,127,254,255",
        28,
        1,
        "43-47,75-79,96,101-105,171-174,203-206,229-232",
    ),
];

#[test]
fn cpus_are_packed_as_upstreams() {
    for (name, manner, free, count, expected) in PACKED {
        let manner = Manner { spread: *manner == "spread", by_uncore: *manner == "uncore" };
        let taken = packed(&machine(name), &set(free), *count, manner);
        assert_eq!(taken, Ok(set(expected)), "{count} of {free} on {name} {manner:?}");
    }
}

#[test]
fn cpus_are_distributed_as_upstreams() {
    for (name, free, count, group, expected) in DISTRIBUTED {
        let taken = distributed(&machine(name), &set(free), *count, *group, Manner::default());
        assert_eq!(taken, Ok(set(expected)), "{count} by {group} of {free} on {name}");
    }
}

#[test]
fn more_than_there_are_cannot_be_taken() {
    let error = Err("not enough cpus available to satisfy request: requested=5, available=4".to_owned());
    assert_eq!(packed(&machine("single-ht"), &set("0,2,4,6"), 5, Manner::default()), error);
    assert_eq!(distributed(&machine("single-ht"), &set("0,2,4,6"), 5, 1, Manner::default()), error);
}
