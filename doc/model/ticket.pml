/*
 * The ticket: how usher keeps exactly one owner of a connection while it goes from one process to another.
 *
 * A giver offers connections to a taker. Messages travel on a channel, but they decide nothing. Each offer
 * has a ticket, a word of memory that both processes have mapped: whoever swaps it first owns the connection.
 *
 *                     taker: claims
 *       OFFERED ----------------------> CLAIMED       Handoff returns nil
 *          |
 *          |          giver: withdraws
 *          +--------------------------> WITHDRAWN     Handoff returns an error
 *
 * Every step that another thread or process can see is one Promela step: one load, store or swap of the word,
 * one send or receive, one change of a process's own table (which its threads guard with a lock). A d_step
 * holds no more than that, plus ghosts: variables that only assertions read. A process that is slow or
 * stopped needs nothing here: the checker runs every interleaving, so everybody is slow in some of them.
 *
 * README.md says what is left out and what the -D switches do. ./check runs all of it.
 */

#ifndef SLOTS
#define SLOTS 1  /* with 1 the second connection has to use the slot of the first again */
#endif
#ifndef ROOM
#define ROOM 1  /* messages that the channel holds, each way, before a sender has to wait */
#endif
#define CONNS 2
#ifndef LIARS
#define LIARS 1  /* the taker misbehaves with this many of the connections */
#endif

/* The two processes. */
#define GIVER 0
#define TAKER 1

/* ---- The page: it outlives both processes. ---- */

#define FREE      0
#define OFFERED   1
#define CLAIMED   2
#define WITHDRAWN 3

#ifdef NO_GENERATION
#define TICKET(generation, state) (state)
#else
#define TICKET(generation, state) ((generation) * 4 + (state))
#endif

byte word[SLOTS] = TICKET(0, FREE);

/* ---- The channel. ---- */

mtype:answer = { Claimed, Declined, Dropped };

chan to_taker = [ROOM] of { byte, byte, byte };  /* OFFER: slot, generation, the descriptor */
chan to_giver = [ROOM] of { mtype:answer, byte, byte };  /* answer, slot, generation */

bool alive[2] = true;
bool closed[2];  /* this process has closed its end of the channel, or died */

#define ALL_DEAD (!alive[GIVER] && !alive[TAKER])

/* Either end closed: nothing more can be sent, either way. */
#define BROKEN (closed[GIVER] || closed[TAKER])

/* The end is seen after all that was sent before it. LOSSY: or earlier, and the rest is lost. */
#ifdef LOSSY
#define END_OF(channel, sender) (closed[sender])
#else
#define END_OF(channel, sender) (closed[sender] && empty(channel))
#endif

/* ---- What the giver knows, shared by its threads. ---- */

#define UNUSED 0  /* may be taken for the next offer */
#define OPEN   1  /* a Handoff waits for the outcome */
#define LEFT   2  /* Handoff has returned, the taker has still to answer */

byte table[SLOTS] = UNUSED;
byte generation[SLOTS];  /* of the last offer in this slot */
mtype:answer answered[SLOTS];  /* what the taker said about the open offer; 0: nothing yet */
bool giver_saw_end;

/* ---- What the taker knows, shared by its threads. ---- */

bool queued[CONNS];  /* the offer has been received */
byte slot_of[CONNS];
byte generation_of[CONNS];

/* ---- Ghosts. ---- */

#define PENDING 0
#define NIL     1
#define ERROR   2

/*
 * Who owns the connection, and reads and writes it. Either side begins as soon as it may and does not stop:
 * so the other has no moment in which its own use would go unnoticed.
 */
bool giver_uses[CONNS];  /* after Handoff has returned an error */
bool taker_uses[CONNS];  /* after its claim has succeeded */
byte outcome[CONNS] = PENDING;  /* what Handoff has returned */
bool was_sent[CONNS];
bool was_received[CONNS];
bool was_claimed[CONNS];  /* by a swap. Stays true when the taker dies */
bool was_withdrawn[CONNS];
bool was_refused[CONNS];  /* the taker has decided not to claim */
byte ticket_of[SLOTS];  /* the connection that the word is about */

/*
 * The promises of the design. Their names are always true and do nothing in an assertion but show up in the
 * checker's message: assert(O1 && x). Slots is no promise to users, but without it slots would run out.
 */
hidden byte O1 = 1, O2 = 1, O4 = 1, Slots = 1;

/* Situations that have to be reachable: a search that never got there would prove nothing. */
#ifdef REACH
hidden byte
  no_slot_in_time = 1,
  withdrawn_while_in_queue = 1,
  withdrawn_while_in_channel = 1,
  withdrawn_unsent = 1,
  sent_though_withdrawn = 1,
  context_ends_after_claim = 1,
  declined_and_back = 1,
  declined_but_claimed = 1,
  told_claimed_but_was_not = 1,
  back_from_dead_taker = 1,
  claimed_by_dead_taker = 1,
  back_from_taker_that_closed = 1,
  claimed_after_giver_saw_end = 1,
  claimed_after_giver_died = 1,
  found_withdrawn_after_giver_died = 1,
  late_claim_meets_next_ticket = 1,
  late_claim_while_giver_uses = 1,
  answer_to_older_ticket = 1,
  both_claimed = 1,
  both_back = 1,
  both_dead_and_unclaimed = 1,
  both_dead_and_claimed = 1;

#define SEEN(name, condition) assert(!(name && (condition)))
#else
#define SEEN(name, condition) skip
#endif

/* ---- Threads and death. ---- */

/*
 * When a process dies its threads stop at once, wherever they are. `ending` is the thread (its pid, see init)
 * whose turn it is to stop. Nobody else moves meanwhile, so that all of it is one step for everybody else.
 * The threads forget what they knew, or the checker would tell states apart that nobody else can.
 */
byte ending;  /* 0: nobody is dying */

#define FIRST_OF_GIVER 1
#define LAST_OF_GIVER  3
#define FIRST_OF_TAKER 4
#define LAST_OF_TAKER  6

#define THREAD provided (ending == 0 || ending == _pid)
#define NEXT_TO_END ending = ((_pid == LAST_OF_GIVER || _pid == LAST_OF_TAKER) -> 0 : ending + 1)

/* What is in a channel when its receiver closes it is lost. */
inline drain(p)
{
  do
  :: p == GIVER && nempty(to_giver) -> to_giver?_, _, _
  :: p == TAKER && nempty(to_taker) -> to_taker?_, _, _
  :: p == GIVER && empty(to_giver) -> break
  :: p == TAKER && empty(to_taker) -> break
  od
}

inline die(p)
{
  d_step {
    alive[p] = false;
    closed[p] = true;
    drain(p);
    if
    :: p == GIVER ->
      ending = FIRST_OF_GIVER;
      for (i : 0 .. CONNS - 1) { giver_uses[i] = false };
      for (i : 0 .. SLOTS - 1) { table[i] = UNUSED; generation[i] = 0; answered[i] = 0 };
      giver_saw_end = false
    :: else ->
      ending = FIRST_OF_TAKER;
      for (i : 0 .. CONNS - 1) {
        taker_uses[i] = false;
        queued[i] = false; slot_of[i] = 0; generation_of[i] = 0
      }
    fi;
    i = 0
  }
}

/*
 * A process dies at any moment, or never; or closes its end of the channel at any moment and lives on.
 * "Never" is a choice of its own: while death can still come nobody is stuck, and the checker would overlook
 * who waits in vain. To close and then die would show nothing new: the other side notices only the first.
 */
proctype Fate(byte p) THREAD
{
  byte i;

  if
  :: die(p)
#ifndef DEATH_ONLY
  :: d_step { drain(p); closed[p] = true }
#endif
  :: skip
  fi
}

/* ---- The giver. ---- */

inline store_ticket()
{
  d_step { word[s] = TICKET(g, OFFERED); ticket_of[s] = c }
}

inline withdraw()
{
#ifdef SPLIT_SWAP
  ok = (word[s] == TICKET(g, OFFERED));
  if
  :: ok -> d_step { word[s] = TICKET(g, WITHDRAWN); was_withdrawn[c] = true }
  :: else
  fi
#else
  d_step {
    ok = (word[s] == TICKET(g, OFFERED));
    if
    :: ok -> word[s] = TICKET(g, WITHDRAWN); was_withdrawn[c] = true
    :: else
    fi;
    SEEN(withdrawn_while_in_queue, ok && late && queued[c] && !was_refused[c]);
    SEEN(withdrawn_while_in_channel, ok && late && sent && !was_received[c]);
    SEEN(withdrawn_unsent, ok && late && !sent && !BROKEN);
    SEEN(context_ends_after_claim, !ok && late);
    SEEN(declined_and_back, ok && said == Declined);
    SEEN(declined_but_claimed, !ok && said == Declined);
    SEEN(told_claimed_but_was_not, ok && said == Claimed);
    SEEN(back_from_dead_taker, ok && was_received[c] && !was_refused[c] && !alive[TAKER]);
    SEEN(claimed_by_dead_taker, !ok && said == 0 && !late && !alive[TAKER]);
    SEEN(back_from_taker_that_closed, ok && queued[c] && said == 0 && !late)
  };
  /* Nobody else could have swapped it, and to nothing else. */
  assert(O2 && (ok || word[s] == TICKET(g, CLAIMED)))
#endif
}

/*
 * O3 by construction: once its context has ended, all that follows in Handoff is a swap, a load and private
 * steps. None of them waits for anyone, so it makes no difference whether the taker runs. The three places
 * that do wait (for a slot, for room in the channel, for the outcome) are left when the context ends.
 */
inline offer()
{
  /*
   * The word is stored before the offer is sent: the giver may die in between, and the taker must be able to
   * claim whatever it received. A plain store will do, since nobody swaps a word that is not OFFERED.
   */
#ifdef KEEP_READING
  giver_uses[c] = true;
#endif
#ifndef STORE_LATE
  store_ticket();
#endif
  /* The context may end before it is sent; then the sending is given up, or goes on behind Handoff's back. */
  if
  :: d_step { !BROKEN && nfull(to_taker) -> to_taker!s, g, c; sent = true; was_sent[c] = true }
  :: BROKEN
  :: d_step { !patient -> late = true }
  :: d_step { !patient -> late = true; sending = true }
  fi;
#ifdef STORE_LATE
  store_ticket();
#endif
  if
  :: !sent
  :: d_step { sent && answered[s] != 0 -> said = answered[s] }
#ifndef FORGET_END
  :: sent && giver_saw_end
#endif
  :: d_step { sent && !patient -> late = true }
  fi;

  /* Whatever ended the wait, the word decides. */
#ifdef TELL_DECIDES
  ok = (said != Claimed);
#else
  if
#ifdef END_DECIDES
  :: said == 0 && !late  /* ok, as it was before */
#endif
  :: d_step { said == Claimed && word[s] == TICKET(g, CLAIMED) -> ok = false }
  :: else -> withdraw()
  fi;
#endif

  /*
   * Until the taker has answered its descriptor may still be on the way, and the slot stays occupied: so no
   * more descriptors are on their way than there are slots. An offer that was not sent will not be answered.
   */
  d_step {
    if
#ifndef REUSE_EARLY
    :: (sent || sending) && answered[s] == 0 -> table[s] = LEFT
#endif
    :: else -> table[s] = UNUSED; answered[s] = 0
    fi
  }
}

inline take(n)
{
  table[n] = OPEN; generation[n]++;
  s = n; g = generation[n]
}

inline forget()
{
  s = 0; g = 0; patient = false; late = false; sent = false; sending = false; ok = false; said = 0
}

/*
 * A call of Handoff. Each has a thread of its own, so that both offers can be under way at once. The context
 * of a patient one never ends, which shows that no outcome is forgotten.
 */
proctype Handoff(byte c; bool patient) THREAD
{
  byte s, g;  /* the ticket: slot and generation */
  bool late;  /* its context has ended */
  bool sent;
  bool sending;  /* goes on when Handoff has returned */
  bool ok = true;  /* the connection is the giver's */
  mtype:answer said;  /* the answer that ended the wait */

  {
    /* Once the giver has seen the end there are no more offers on this channel. */
    if
    :: d_step { !giver_saw_end && table[0] == UNUSED -> take(0) }; offer()
#if SLOTS > 1
    :: d_step { !giver_saw_end && table[0] != UNUSED && table[1] == UNUSED -> take(1) }; offer()
#endif
    :: giver_saw_end
    :: d_step { !patient -> SEEN(no_slot_in_time, !giver_saw_end && table[0] != UNUSED) }
    fi;

    /*
     * After an error the giver serves the connection itself or takes it elsewhere, which is the same here.
     * After nil it closes its copy of the descriptor.
     */
    d_step {
      outcome[c] = (ok -> ERROR : NIL);
      giver_uses[c] = ok;
      assert(O2 && (ok || was_claimed[c]));  /* nil: the taker has claimed */
      assert(O2 && (!ok || !was_claimed[c]));  /* error: it has not */
      assert(O1 && !(giver_uses[c] && taker_uses[c]));
      if
      :: sending -> patient = false; late = false; ok = false
      :: else -> forget()
      fi
    };

    /* Handoff has returned. What was being sent is sent, withdrawn or not. */
end_done:
    do
    :: d_step {
        sending && !BROKEN && nfull(to_taker) -> to_taker!s, g, c; was_sent[c] = true;
        SEEN(sent_though_withdrawn, was_withdrawn[c]);
        forget()
      }
    :: d_step { sending && BROKEN -> forget() }
    od
  } unless { d_step { ending == _pid -> forget(); NEXT_TO_END } }
}

/* The giver's thread that receives. It never sends, so a channel that is full cannot make it wait. */
proctype GiverReceives() THREAD
{
  mtype:answer said;
  byte s, g;

  {
    skip;  /* Spin takes no label here */
end_idle:
    do
    :: closed[GIVER] -> break
    :: d_step { !closed[GIVER] && nempty(to_giver) -> to_giver?said, s, g };
      d_step {
        SEEN(answer_to_older_ticket, g < generation[s]);
        if
        :: table[s] == OPEN && generation[s] == g && answered[s] == 0 -> answered[s] = said
#ifndef FORGET_SLOT
        :: table[s] == LEFT && generation[s] == g -> table[s] = UNUSED
#endif
#if LIARS == 0 && !defined(REUSE_EARLY)
        :: else -> assert(Slots && false)  /* an honest taker answers once, and is waited for */
#else
        :: else  /* a second answer, or to an older ticket */
#endif
        fi;
        said = 0; s = 0; g = 0
      }
    :: END_OF(to_giver, TAKER) -> break
    od;
    giver_saw_end = true;
end_done:
    false
  } unless { d_step { ending == _pid -> said = 0; s = 0; g = 0; NEXT_TO_END } }
}

/* ---- The taker. ---- */

/* The taker's thread that receives. Its queue is the set of all that is `queued`, in no order. */
proctype TakerReceives() THREAD
{
  byte s, g, c;

  {
    skip;
end_idle:
    do
    :: closed[TAKER] -> break
    :: d_step { !closed[TAKER] && nempty(to_taker) -> to_taker?s, g, c; was_received[c] = true };
      d_step {
        queued[c] = true; slot_of[c] = s; generation_of[c] = g;
        s = 0; g = 0; c = 0
      }
    :: END_OF(to_taker, GIVER) -> break  /* what is in the queue stays there */
    od;
end_done:
    false
  } unless { d_step { ending == _pid -> s = 0; g = 0; c = 0; NEXT_TO_END } }
}

inline claim()
{
  d_step {
#ifdef TELL_DECIDES
    ok = true;
#else
    ok = (word[slot_of[c]] == TICKET(generation_of[c], OFFERED));
#endif
    SEEN(late_claim_meets_next_ticket, !ok && word[slot_of[c]] == TICKET(generation_of[c] + 1, OFFERED));
    SEEN(late_claim_while_giver_uses, !ok && giver_uses[c]);
    SEEN(found_withdrawn_after_giver_died, !ok && !alive[GIVER]);
    SEEN(claimed_after_giver_died, ok && !alive[GIVER]);
    SEEN(claimed_after_giver_saw_end, ok && giver_saw_end);
    if
    :: ok ->
      word[slot_of[c]] = TICKET(generation_of[c], CLAIMED);
      taker_uses[c] = true;
      was_claimed[c] = true;
      assert(O1 && ticket_of[slot_of[c]] == c);  /* it tore the ticket of this connection */
      assert(O1 && !(giver_uses[c] && taker_uses[c]));
      assert(O2 && outcome[c] != ERROR)
    :: else ->
      assert(O4 && was_withdrawn[c])  /* nothing else stops a claim, not the death of the giver either */
    fi
  }
}

inline tell(what)
{
  if
  :: d_step { !BROKEN && nfull(to_giver) -> to_giver!what, slot_of[c], generation_of[c] }
  :: BROKEN
  fi
}

inline accept()
{
#ifdef CLAIM_BEFORE_SWAP
  d_step { taker_uses[c] = true; assert(O1 && !(giver_uses[c] && taker_uses[c])) };
#endif
  claim();
  if
  :: ok -> tell(Claimed)
  :: else ->
    taker_uses[c] = false;  /* closes the descriptor unread */
    tell(Dropped)
  fi
}

/* What the taker does with an offer in its queue. Each has a thread of its own, so that any can be late. */
proctype Serve(byte c) THREAD
{
  bool ok;

end_idle:
  {
    queued[c];
    if
    :: was_refused[c] = true; tell(Declined)  /* closes the descriptor unread */
    :: accept()
#if LIARS > 0
    :: c < LIARS ->  /* misbehaves: says anything, and tries to claim all the same */
      if
      :: tell(Claimed)
      :: tell(Declined)
      :: tell(Dropped)
      fi;
      accept()
#endif
    fi;
    ok = false;
end_done:
    false
  } unless { d_step { ending == _pid -> ok = false; NEXT_TO_END } }
}

/* ---- The end. ---- */

#ifdef LOSSY
#define REACHED(c) (alive[TAKER] && was_received[c])
#else
#define REACHED(c) (alive[TAKER] && (was_received[c] || (was_sent[c] && !closed[TAKER])))
#endif

/* timeout: nobody else can take a step. Every run gets here, since no thread can go on for ever. */
proctype Finally() THREAD
{
  byte c;

  timeout;
  d_step {
    for (c : 0 .. CONNS - 1) {
      if
      :: alive[GIVER] ->
        assert(O2 && outcome[c] != PENDING);
        assert(O2 && (outcome[c] == NIL) == was_claimed[c]);
        assert(O2 && (outcome[c] == ERROR) == giver_uses[c])
      :: else ->
        /* What reached the taker is served, unless it was withdrawn before or the taker declined. */
        assert(O4 && (!REACHED(c) || was_withdrawn[c] || was_refused[c] || taker_uses[c]))
      fi;
      assert(O4 && (!alive[TAKER] || was_claimed[c] == taker_uses[c]))  /* a claim is for good */
    };
    for (c : 0 .. SLOTS - 1) {
      assert(Slots && (!alive[GIVER] || giver_saw_end || table[c] == UNUSED))
    };
    c = 0;
    SEEN(both_claimed, taker_uses[0] && taker_uses[1] && outcome[0] == NIL && outcome[1] == NIL);
    SEEN(both_back, giver_uses[0] && giver_uses[1] && was_sent[0] && was_sent[1]);
    SEEN(both_dead_and_claimed, ALL_DEAD && was_claimed[0] && outcome[0] == PENDING);
    SEEN(both_dead_and_unclaimed, ALL_DEAD && was_received[0] && word[0] == TICKET(1, OFFERED))
  }
}

init {
  bool p0, p1;

  atomic {
    if
    :: p0 = true
    :: skip
    fi;
    if
    :: p1 = true
    :: skip
    fi;
    run Handoff(0, p0); run Handoff(1, p1); run GiverReceives();  /* pids 1 to 3: see FIRST_OF_GIVER */
    run TakerReceives(); run Serve(0); run Serve(1);  /* pids 4 to 6 */
    run Fate(GIVER); run Fate(TAKER);
    run Finally()
  }
}
