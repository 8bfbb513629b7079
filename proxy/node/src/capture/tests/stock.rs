//! A stock by itself.

use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use dataplane::capture::PodId;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::super::{
    stock::{Depot, Empty, Presence, Stock, Wish},
    tally::SocketTally,
};
use crate::{
    agent::protocol::{PodKey, SocketKind},
    settings::StockSettings,
};

const WISH: Wish = Wish {
    id: PodId { slot: 1, generation: 1 },
    pod: PodKey { slot: 1, netns: 2 },
    kind: SocketKind::Egress4,
};

struct World {
    depot: Arc<Depot>,
    wishes: mpsc::Receiver<Wish>,
    presence: watch::Sender<Presence>,
}

fn world(initial: u32, most: u32, total: u32) -> World {
    let (wish, wishes) = mpsc::channel(100);
    let (presence, agent) = watch::channel(Presence::Here);
    let settings = StockSettings { initial, most, total, wait_ms: 20_000 };
    World { depot: Depot::new(settings, wish, agent), wishes, presence }
}

impl World {
    fn stock(&self, ahead: bool) -> Stock {
        Stock::new(WISH, ahead, Arc::clone(&self.depot))
    }

    /// What the session does with a wish: as often as the stock asks.
    fn fill(&mut self, stock: &Stock) -> u32 {
        let mut given = 0;
        while self.wishes.try_recv().is_ok() {
            loop {
                let wanted = stock.wanted();
                given += wanted;
                if wanted == 0 || !stock.put(sockets(wanted)) {
                    break;
                }
            }
        }
        given
    }
}

fn sockets(count: u32) -> Vec<OwnedFd> {
    (0..count).map(|_| std::fs::File::open("/dev/null").unwrap().into()).collect()
}

/// Whether one who comes now has to wait.
async fn finds_none(stock: &Stock) -> bool {
    let tally = SocketTally::default();
    tokio::time::timeout(Duration::from_millis(1), stock.take(&tally)).await.is_err()
}

async fn take(stock: &Stock, count: u32) {
    for _ in 0..count {
        stock.take(&SocketTally::default()).await.unwrap();
    }
}

#[tokio::test]
async fn it_is_filled_again_below_half() {
    let mut world = world(8, 64, 1000);
    let stock = world.stock(true);
    stock.refill();
    assert_eq!(world.fill(&stock), 8);
    take(&stock, 4).await;
    assert_eq!(world.fill(&stock), 0, "half is left");
    take(&stock, 1).await;
    assert_eq!(world.fill(&stock), 5);
    assert_eq!((stock.len(), world.depot.held()), (8, 8));
}

#[tokio::test]
async fn what_is_not_used_is_not_made() {
    let mut world = world(8, 64, 1000);
    let stock = world.stock(false);
    stock.refill();
    stock.tick();
    assert_eq!(world.fill(&stock), 0);
}

#[tokio::test]
async fn its_level_follows_the_use() {
    let mut world = world(8, 256, 1000);
    let stock = world.stock(true);
    stock.refill();
    world.fill(&stock);
    for _ in 0..10 {
        take(&stock, 5).await;
        world.fill(&stock);
    }
    stock.tick();
    take(&stock, 8).await;
    world.fill(&stock);
    assert_eq!(stock.len(), 100, "two seconds of fifty each");
    // Little by little it is given back.
    for _ in 0..60 {
        stock.tick();
    }
    assert!((8..=16).contains(&stock.len()), "{}", stock.len());
    assert_eq!(world.depot.held(), stock.len());
}

#[tokio::test]
async fn one_that_runs_dry_doubles_up_to_the_most() {
    let mut world = world(2, 8, 1000);
    let stock = world.stock(true);
    for expected in [4, 8, 8] {
        assert!(finds_none(&stock).await);
        assert_eq!(world.fill(&stock), expected);
        take(&stock, expected).await;
        // The wishes of the way down are not fulfilled this time.
        while world.wishes.try_recv().is_ok() {}
        stock.unanswered(false);
    }
}

#[tokio::test]
async fn all_together_stay_below_the_total_but_each_is_granted_some() {
    let mut world = world(4, 64, 20);
    let greedy = world.stock(true);
    for _ in 0..6 {
        greedy.refill();
        world.fill(&greedy);
        let there = u32::try_from(greedy.len()).unwrap();
        take(&greedy, there).await;
        finds_none(&greedy).await;
        world.fill(&greedy);
    }
    assert_eq!(greedy.len(), 20);
    let late = world.stock(true);
    late.refill();
    assert_eq!(world.fill(&late), 4, "what every stock is granted");
    drop(greedy);
    assert_eq!(world.depot.held(), 4);
}

#[tokio::test]
async fn those_who_wait_are_served_as_sockets_come() {
    let world = world(1, 64, 1000);
    let stock = world.stock(true);
    let tally = SocketTally::default();
    let waiting = futures(&stock, &tally, 10);
    let filling = async {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            stock.put(sockets(2));
        }
    };
    let (taken, ()) = tokio::join!(waiting, filling);
    assert!(taken.iter().all(Result::is_ok));
    assert_eq!((tally.waited.get(), tally.ready.get(), tally.refused.get()), (10, 0, 0));
}

#[tokio::test]
async fn a_wait_has_an_end() {
    let mut world = world(1, 64, 1000);
    Arc::get_mut(&mut world.depot).unwrap().settings.wait_ms = 200;
    let stock = world.stock(true);
    let tally = SocketTally::default();
    let began = Instant::now();
    assert_eq!(stock.take(&tally).await.unwrap_err(), Empty::Late);
    assert!(began.elapsed().as_millis() >= 200);
    // An agent that restarts is waited for, one that stays away is not.
    let away = Instant::now();
    world.presence.send_replace(Presence::AwaySince(away));
    assert_eq!(stock.take(&tally).await.unwrap_err(), Empty::NoAgent);
    assert!(away.elapsed().as_millis() >= 200);
    let at_once = tokio::time::timeout(Duration::from_millis(150), stock.take(&tally));
    assert_eq!(at_once.await.expect("at once").unwrap_err(), Empty::NoAgent);
    assert_eq!(tally.refused.get(), 3);
}

#[tokio::test]
async fn closing_ends_every_wait() {
    let world = world(1, 64, 1000);
    let stock = world.stock(true);
    let tally = SocketTally::default();
    let closing = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        stock.close(Empty::NoFamily);
    };
    let (taken, ()) = tokio::join!(futures(&stock, &tally, 3), closing);
    assert!(taken.iter().all(|taken| matches!(taken, Err(Empty::NoFamily))));
    // What comes afterwards is closed.
    assert!(!stock.put(sockets(3)));
    assert_eq!((stock.len(), world.depot.held(), stock.wanted()), (0, 0, 0));
}

#[tokio::test]
async fn what_was_refused_is_asked_again_after_a_pause() {
    let mut world = world(4, 64, 1000);
    let stock = world.stock(true);
    stock.refill();
    assert!(world.wishes.try_recv().is_ok());
    stock.unanswered(true);
    stock.refill();
    assert!(world.wishes.try_recv().is_err(), "not at once");
    tokio::time::sleep(Duration::from_millis(300)).await;
    stock.refill();
    assert!(world.wishes.try_recv().is_ok());
}

async fn futures(stock: &Stock, tally: &SocketTally, count: usize) -> Vec<Result<OwnedFd, Empty>> {
    futures_util::future::join_all((0..count).map(|_| stock.take(tally))).await
}
