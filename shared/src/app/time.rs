//! Keeping to the database's clock.

use std::time::{Duration, Instant};

use super::App;
use crate::domain::clock::Millis;
use crate::store::StoreError;

/// How often the database's clock is read.
const EVERY: Duration = Duration::from_secs(10);
/// How often the machine's clock is looked at: one that jumps may mean that the machine was asleep.
const LOOK: Duration = Duration::from_secs(1);
/// A jump or an offset of so many milliseconds is worth a word.
const NOTABLE: Millis = 1_000;
/// An answer that took longer says too little.
const LATE: Duration = Duration::from_secs(1);

impl App {
    /// Reads the database's clock once; an embedded deployment keeps to the machine's.
    pub async fn learn_time(&self) -> Result<(), StoreError> {
        let asked = Instant::now();
        let server = self.store.server().await?;
        let took = asked.elapsed();
        if took < LATE {
            self.clock.learn(server.map(|server| server.now), took);
            metrics::gauge!("listmill_clock_offset_seconds")
                .set(self.clock.offset() as f64 / 1_000.0);
        }
        Ok(())
    }

    /// Keeps to the database's clock until dropped, and says when this machine's is off.
    pub async fn keep_time(&self) {
        let mut told: Millis = 0;
        loop {
            if let Err(error) = self.learn_time().await {
                tracing::debug!(%error, "cannot read the database's clock");
            }
            let offset = self.clock.offset();
            if offset.abs() >= NOTABLE && (offset - told).abs() >= NOTABLE {
                tracing::warn!(
                    seconds = -offset as f64 / 1_000.0,
                    "this machine's clock is off against the database's, which counts; is it kept by NTP?"
                );
                told = offset;
            } else if offset.abs() < NOTABLE && told != 0 {
                tracing::info!("this machine's clock agrees with the database's again");
                told = 0;
            }
            self.until_a_jump(offset).await;
        }
    }

    /// Waits for the next reading, or until the machine's clock has jumped.
    async fn until_a_jump(&self, offset: Millis) {
        let next = Instant::now() + EVERY;
        while Instant::now() < next {
            tokio::time::sleep(LOOK).await;
            if (self.clock.offset() - offset).abs() >= NOTABLE {
                tracing::info!("this machine's clock has jumped");
                return;
            }
        }
    }
}
