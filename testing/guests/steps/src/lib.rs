//! For the tests of what steps ask of the host: each function does as its event's data says.

use dormouse::prelude::*;

mod fetching;
mod invoking;
mod logging;
mod sending;
mod signals;
mod timing;
mod triggered;
mod waiting;

dormouse::module!(
    fetching::fetch,
    fetching::fetch_beside,
    invoking::invoke,
    invoking::child,
    invoking::descend,
    invoking::race_invoke,
    invoking::all_kinds,
    invoking::compensate,
    logging::log,
    logging::reveal,
    sending::send,
    sending::send_between,
    sending::give_up_sending,
    sending::echo,
    triggered::large,
    triggered::any_of,
    signals::wait_for_signal,
    signals::send_signal,
    signals::signal_itself,
    timing::timed,
    waiting::wait,
    waiting::any_of_three,
    waiting::send_then_wait,
    waiting::wait_then_send,
    waiting::beside_a_failing_body,
    waiting::lose_interest,
    waiting::all_answers,
);
