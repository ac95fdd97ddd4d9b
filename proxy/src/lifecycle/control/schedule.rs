//! When a control source is polled again.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The usual interval, or after failures a short one that doubles up to it. `random` spreads it by a tenth
/// to either side, so that replicas do not poll together.
pub(super) fn pace(every: Duration, failures: u32, random: u8) -> Duration {
    let pace = match failures {
        0 => every,
        _ => AGAIN_AFTER.saturating_mul(1 << (failures - 1).min(20)).min(every),
    };
    pace.mul_f64(0.9 + 0.2 * f64::from(random) / 255.0)
}

pub(super) fn random() -> u8 {
    let mut byte = [128];
    // If it fails, there is no spread.
    let _ = SystemRandom::new().fill(&mut byte);
    byte[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_failures_it_is_polled_soon_and_then_with_backoff_up_to_the_interval() {
        let minute = Duration::from_secs(60);
        let tenths = |failures, random| pace(minute, failures, random).as_millis() / 100;
        assert_eq!([tenths(0, 0), tenths(0, 255)], [540, 660]);
        let in_a_row: Vec<_> = (1..9).map(|failures| tenths(failures, 0)).collect();
        assert_eq!(in_a_row, [9, 18, 36, 72, 144, 288, 540, 540]);
        assert_eq!(tenths(u32::MAX, 0), 540);
        let short = Duration::from_millis(100);
        assert_eq!(pace(short, 7, 255), Duration::from_millis(110));
    }
}
