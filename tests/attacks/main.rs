//! What hostile and mistaken peers try, one file each, against a real aggregator with a run under way. Each must be
//! refused with its own reason, cost bounded memory, and leave the run alone (invariants 8, 9 and 12). `hostile_sum` is the
//! other way round: the aggregator is hostile, and the devices are real.

mod attacker;
mod battlefield;
mod certificates;
mod four_gigabytes;
mod garbage;
mod half_a_frame;
mod hostile_sum;
mod huge_frame;
mod name_lie;
mod silence;
mod ten_thousand_streams;
