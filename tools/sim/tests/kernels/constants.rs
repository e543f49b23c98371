//! What the simulator repeats of the kernels' sources.

use trellink_sim::Fault;

/// The faults that a test cannot choose: their waits would not end.
const NOT_HERE: [&str; 2] = ["UnboundedWait", "UnaskedWait"];

/// Names and numbers in the `enum Fault` of `csrc/comm/fault.cuh`, without those that are not here.
fn faults_of_the_source() -> Vec<(String, u32)> {
    let source = include_str!("../../../../csrc/comm/fault.cuh");
    let (_, body) = source.split_once("enum Fault : uint32_t {").unwrap();
    let (body, _) = body.split_once("};").unwrap();
    let lines = body
        .lines()
        .filter_map(|line| line.trim().strip_suffix(','));
    let faults = lines.filter_map(|line| line.strip_prefix('k')?.split_once(" = "));
    let faults = faults.filter(|(name, _)| !NOT_HERE.contains(name));
    faults
        .map(|(name, number)| (name.to_owned(), number.parse().unwrap()))
        .collect()
}

#[test]
fn faults_have_the_numbers_of_the_source() {
    let here = [
        Fault::DelayedCta,
        Fault::DelayedRank,
        Fault::DroppedPacket,
        Fault::OneHalf,
        Fault::Equal,
        Fault::AnyTag,
        Fault::HalfStopped,
    ];
    let here = here.map(|fault| (format!("{fault:?}"), fault as u32));
    assert_eq!(here[..], faults_of_the_source()[..]);
}
