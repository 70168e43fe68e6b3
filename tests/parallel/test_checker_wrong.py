"""The checker catches programs known to be wrong, with a message that says where."""

from dataclasses import replace

import numpy as np
import pytest

from minidl import models, nn
from minidl.parallel import Plan, check
from minidl.parallel import instructions as I
from minidl.parallel.assembly import training_program
from minidl.parallel.instructions import buffers as B
from minidl.parallel.layout import layout
from minidl.parallel.meetings import CHANNEL_MESSAGES
from minidl.parallel.prepare import prepare
from minidl.parallel.program import RankProgram
from minidl.parallel.rules import COMPUTE_RULES
from minidl.parallel.runtime.channel import SLOTS
from tests.parallel.programs import BLOCKS, PIPELINE, Discard, by_all, caught, edited, find, programs, training


def swap(step, a, b):
    step[a], step[b] = step[b], step[a]


def test_swapped_receives_are_caught():
    def change(step):
        swap(step, find(step, I.RecvActivation, micro_batch=1), find(step, I.RecvActivation, micro_batch=2))

    caught(
        edited(training(), 2, change),
        "rank 2: Forward(chunk=1, micro_batch=1",
        "reads input of chunk 1, micro-batch 1, which nothing writes before",
    )

    def both_before_they_are_needed(step):
        early = step.pop(find(step, I.RecvActivation, micro_batch=2))
        step.insert(find(step, I.RecvActivation, micro_batch=1), early)

    caught(
        edited(training(), 2, both_before_they_are_needed),
        "rank 2 expects the activation of micro-batch 2 from rank 0, which sends the activation of micro-batch 1 first",
    )


def test_a_send_to_the_wrong_peer_is_caught():
    def change(step):
        n = find(step, I.SendActivation, micro_batch=3)
        step[n] = replace(step[n], to=3)

    caught(edited(training(), 0, change), "deadlock", "rank 2 at RecvActivation(chunk=1, micro_batch=3, source=0)")

    def all_of_them(step):
        return [replace(i, to=3) if isinstance(i, I.SendActivation) else i for i in step]

    message = "activation of micro-batch 0 of replica 0 after 4 blocks from rank 0 to rank 3"
    caught(edited(training(), 0, all_of_them), message)

    def to_itself(step):
        return [replace(i, to=0) if isinstance(i, I.SendActivation) else i for i in step]

    caught(
        edited(training(), 0, to_itself),
        "rank 0: SendActivation(chunk=0, micro_batch=0, last_bucket=3, to=0) has no such peer",
    )


def test_a_replica_that_trains_on_the_activations_of_another_is_caught():
    program = training()
    cross = {}
    for rank, other in ((0, 3), (1, 2)):
        cross[rank] = tuple(replace(i, to=other) if isinstance(i, I.SendActivation) else i for i in program[rank].step)
    for rank, other in ((2, 1), (3, 0)):
        cross[rank] = tuple(
            replace(i, source=other) if isinstance(i, I.RecvActivation) else i for i in program[rank].step
        )
    wrong = program.edit({rank: RankProgram((), step, ()) for rank, step in cross.items()})
    message = "compares micro-batch 0 of replica 1 after 8 blocks with the labels of micro-batch 0 of replica 0"
    caught(wrong, "Loss", message)


def test_a_gradient_counted_twice_is_caught():
    def reduce_twice(i):
        return [i, i] if i == I.ReduceGradients(0, 2) else [i]

    message = "gradients of chunk 0, bucket 2 count [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)"
    caught(by_all(training(), reduce_twice), "rank 0: ", message, "more than once (replica, micro-batch)")

    def backward_again(step):
        step.insert(find(step, I.Backward), step[find(step, I.Backward)])

    message = "frees or overwrites gradients of chunk 0, bucket 0, which it does not read"
    caught(
        edited(training(Plan(micro_batches=2)), 0, backward_again), "rank 0: Backward(chunk=0, micro_batch=0", "freed"
    )

    def start_anew(step):  # with micro-batch 1, and forget micro-batch 0
        n = find(step, I.Backward, micro_batch=1)
        step[n] = replace(step[n], accumulates=False)

    caught(edited(training(Plan(micro_batches=2)), 0, start_anew), "rank 0: Backward(chunk=0, micro_batch=1", message)


def test_a_micro_batch_that_is_forgotten_is_caught():
    def forget(step):  # train on micro-batch 0 alone, and say so consistently
        untrained = {I.Forward: {"trained": BLOCKS}, I.Loss: {"trained": False}}
        return [
            replace(i, **untrained.get(type(i), {})) if getattr(i, "micro_batch", 0) == 1 else i
            for i in step
            if not (isinstance(i, I.Backward) and i.micro_batch == 1)
        ]

    caught(
        edited(training(Plan(micro_batches=2)), 0, forget),
        "rank 0: gradients of chunk 0, bucket 0 lack [(0, 1)] (replica, micro-batch) of the global batch",
    )


def test_a_loss_that_is_left_out_of_the_total_is_caught():
    def leave_out(step):
        n = find(step, I.ReduceLoss)
        step[n] = I.ReduceLoss((0, 2))
        step.insert(n, Discard((B.loss(1),)))

    for program in programs(Plan(micro_batches=3)):
        caught(edited(program, 0, leave_out), "rank 0: the total lack [(0, 1)]")


def test_a_bucket_that_is_left_out_is_caught():
    def change(kind, cut):
        def changed(step):
            n = find(step, kind)
            step[n] = replace(step[n], buckets=cut(step[n].buckets))

        return changed

    once = "needs each of the 4 buckets of the rank once"
    for cut in (lambda buckets: buckets[1:], lambda buckets: (buckets[0], *buckets)):
        caught(edited(training(clip=True), 1, change(I.ReduceNorm, cut)), "rank 1: ReduceNorm", once)
        caught(
            edited(training(norms=True), 3, change(I.ReduceParameterNorms, cut)), "rank 3: ReduceParameterNorms", once
        )
    caught(
        edited(training(norms=True), 3, change(I.OptimizerStep, lambda b: (*b, b[0]))), "rank 3: OptimizerStep", once
    )
    forgotten = edited(training(), 0, change(I.OptimizerStep, lambda buckets: buckets[1:]))
    caught(forgotten, "rank 0: at the end of a step, never freed: gradients of chunk 0, bucket 0")

    def discard(step):
        change(I.OptimizerStep, lambda buckets: buckets[1:])(step)
        step.append(Discard((B.gradients(0, 0),)))

    caught(edited(training(), 0, discard), "rank 0: OptimizerStep", once)


def test_an_update_from_shares_and_whole_gradients_is_caught():
    whole = training(Plan(data=2, sharding="optimizer"))
    mixed = by_all(whole, lambda i: [I.ReduceGradients(0, 2) if i == I.ReduceScatterGradients(0, 2) else i])
    caught(mixed, "OptimizerStep", "needs shares of gradients")


def test_parameters_of_which_a_replica_has_its_share_alone_are_not_computed_with():
    def look_too_early(step):
        n = find(step, I.GatherParameters)
        last = step[find(step, I.Loss)].last_bucket
        step[n:n] = I.LoadInput(1), I.Infer(0, 1, 0, last), Discard((B.activation(0, 1, last),))

    program = training(Plan(data=2, sharding="optimizer"))
    takes = "takes parameters of chunk 0, bucket 0, of which this replica has its share alone"
    caught(edited(program, 1, look_too_early), "rank 1: Infer(chunk=0, micro_batch=1", takes)


def test_a_backward_by_other_parameters_than_the_forward_took_is_caught():
    def span_the_update(step):
        forward, update = find(step, I.Forward), find(step, I.OptimizerStep)
        last = step[forward].last
        step[update + 1 : update + 1] = (
            replace(step[find(step, I.Backward)], micro_batch=1),
            Discard(tuple(B.gradients(0, b) for b in range(last + 1))),
        )
        begin = I.LoadInput(1), replace(step[forward], micro_batch=1), I.LoadTarget(1), I.Loss(0, 1, last, True)
        step[update:update] = *begin, Discard((B.loss(1),))

    message = "rank 0: Backward(chunk=0, micro_batch=1", "goes back by other parameters than forward took"
    caught(edited(training(Plan()), 0, span_the_update), *message)


def test_a_program_that_updates_more_or_less_than_its_plan_says_is_caught():
    whole, sharded = Plan(data=2), Plan(data=2, sharding="optimizer")
    for plan, other in ((whole, sharded), (sharded, whole)):
        lists = training(other, clip=True)
        program = training(plan).edit({rank: lists[rank] for rank in (0, 1)})
        caught(program, "ReduceNorm", f"needs axes={('pipeline', *plan.parted)}: the plan is {plan}")
        lists, own = training(other), training(plan)
        (needed,) = (i.sharded for i in own[0].step if isinstance(i, I.OptimizerStep))
        program = own.edit({rank: lists[rank] for rank in (0, 1)})
        caught(program, "OptimizerStep", f"needs sharded={needed}: the plan is {plan}")


def test_norms_that_are_summed_over_other_ranks_than_those_that_hold_parts_are_caught():
    def over_others(step):
        other = {("tensor",): ("data", "tensor"), ("data", "tensor"): ("tensor",)}
        return [replace(i, axes=other[i.axes]) if isinstance(i, I.ReduceParameterNorms) else i for i in step]

    for plan in (Plan(data=2, sharding="optimizer"), Plan(data=2)):
        program = training(plan, norms=True)
        both = program.edit({rank: edited(program, rank, over_others)[rank] for rank in (0, 1)})
        caught(both, "ReduceParameterNorms", f"needs axes={plan.parted}")


def test_a_gather_that_comes_only_after_the_last_step_is_caught():
    program = training(Plan(data=2, sharding="optimizer"))
    late = {}
    for rank in (0, 1):
        gathers = tuple(i for i in program[rank].step if isinstance(i, I.GatherParameters))
        late[rank] = RankProgram((), tuple(i for i in program[rank].step if i not in gathers), gathers)
    caught(program.edit(late), "rank 0: a step never gathers parameters of chunk 0, bucket 0")


def test_a_program_that_does_nothing_trains_nothing():
    program = training(Plan(data=2))
    caught(program.edit(dict.fromkeys((0, 1), RankProgram((), (), ()))), "rank 0: a step never updates parameters of")


def test_what_is_no_edit_is_refused():
    program = training(Plan(data=2))
    for lists, message in (
        ({2: program[0]}, "there are the ranks 0 to 1: rank 2 cannot be edited"),
        ([program[0]], "edit needs a dict of ranks and their RankPrograms, not"),
        ({0: None}, "rank 0 needs a RankProgram of instructions, not None"),
        ({0: RankProgram((), ("Forward",), ())}, "rank 0 needs a RankProgram of instructions"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            program.edit(lists)
    for index in (-1, 99, "a"):
        with pytest.raises(ValueError, match="has [0-9]+ instructions, from 0: there is no"):
            program.without(0, index)
    with pytest.raises(IndexError, match="there are the ranks 0 to 1, and no 'a'"):
        program["a"]
    assert len(list(program)) == len(program) == 2
    with pytest.raises(TypeError, match="check needs a Program, not a RankProgram"):
        check(program[0])


def test_shares_that_nobody_gathers_are_caught():
    program = training(Plan(data=2, sharding="optimizer"))
    for bucket in (0, 3):
        lost = by_all(program, lambda i, lost=bucket: [] if i == I.GatherParameters(0, lost) else [i])
        caught(lost, f"rank 0: a step never gathers parameters of chunk 0, bucket {bucket}")


def test_a_buffer_that_is_freed_or_overwritten_while_it_is_needed_is_caught():
    def insert(index, *instructions):
        return lambda step: [*step[:index], *instructions, *step[index:]]

    program = training(Plan())
    step = list(program[0].step)
    output = B.activation(0, 0, step[find(step, I.Forward)].last)
    too_early = edited(program, 0, insert(find(step, I.Loss), Discard((output,))))
    caught(too_early, "rank 0: Loss", f"reads {output}, which is freed before")
    late_reader = edited(program, 0, insert(find(step, I.Loss) + 1, Discard((B.target(0),))))
    caught(late_reader, "rank 0: Discard", "reads target of micro-batch 0, which is freed before")
    again = edited(program, 0, insert(find(step, I.Forward), I.LoadInput(0)))
    caught(again, "rank 0: LoadInput(micro_batch=0)", "overwrites input of chunk 0, micro-batch 0")
    lost = edited(program, 0, insert(len(step), Discard((B.state(0, 2),))))
    caught(lost, "rank 0: at the end of a step, lost: state of chunk 0, bucket 2")


class HoardingScore(I.Score):
    def touches(self):
        return super().touches()._replace(frees=[B.activation(self.chunk, self.micro_batch, self.last_bucket)])


def test_a_buffer_that_is_never_freed_is_caught(monkeypatch):
    monkeypatch.setitem(COMPUTE_RULES, HoardingScore, COMPUTE_RULES[I.Score])

    def hoard(step):
        n = find(step, I.Score, micro_batch=2)
        step[n] = HoardingScore(step[n].chunk, step[n].micro_batch, step[n].last_bucket)

    caught(
        edited(programs(PIPELINE)[1], 2, hoard), "rank 2: at the end of a step, never freed: target of micro-batch 2"
    )


def test_an_order_that_deadlocks_is_caught_with_the_place_of_every_rank():
    def backward_first(step):  # stage 0 wants a gradient before it has sent all that stage 1 needs for it
        first, second = find(step, I.RecvGradient, micro_batch=0), find(step, I.SendActivation, micro_batch=0)
        step.insert(second, step.pop(first))

    caught(
        edited(training(Plan(pipeline=2)), 0, backward_first),
        "deadlock: no instruction can run any more (rank 0 at Backward(chunk=0, micro_batch=0",
        "rank 0 at RecvGradient",
        "rank 1 at Forward",
    )


def test_members_of_a_group_that_disagree_are_caught():
    def other_bucket_first(step):
        swap(step, find(step, I.ReduceGradients, bucket=3), find(step, I.ReduceGradients, bucket=2))

    caught(
        edited(training(), 3, other_bucket_first),
        "rank 3 is at ReduceGradients(chunk=1, bucket=2, axes=('data',)), rank 2 of the same group at "
        "ReduceGradients(chunk=1, bucket=3, axes=('data',))",
    )


def test_replicas_that_reduce_different_chunks_are_caught():
    """Two stages of two chunks, of which each has one bucket: by their names the reductions are alike."""
    plan = Plan(data=2, pipeline=2, schedule="gpipe")
    cuts = replace(layout(replace(plan, pipeline=4), [1.0] * 4, [2**20] * 4), stages=((0, 2), (1, 3)))
    program = training_program(plan, cuts)
    check(program)

    def other_chunk_first(step):
        later = step.pop(find(step, I.ReduceGradients, chunk=2))
        step.insert(find(step, I.ReduceGradients, chunk=0) + 1, later)

    caught(edited(program, 1, other_chunk_first), "rank 1 is at ReduceGradients(chunk=0", "rank 0 of the same group at")


def test_statistics_that_nobody_broadcasts_are_caught():
    def build(mesh):
        return nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))

    example = np.ones((1, 8), np.float32), np.zeros(1, int)
    program = prepare(build, Plan(data=2), 8, example=example).evaluation
    check(program)
    without = program.edit({rank: replace(program[rank], prologue=()) for rank in range(2)})
    caught(without, "rank 1: Infer", "takes the statistics of chunk 0 of replica 1, not 0")


class Unheard(I.LoadInput):
    """An instruction that the checker has never heard of."""


def test_an_instruction_that_writes_and_has_no_rule_is_refused():
    program = edited(training(Plan()), 0, lambda step: [Unheard(0), *step[1:]])
    caught(program, "rank 0: there is no rule by which Unheard(micro_batch=0) is proved")


def test_members_that_disagree_on_a_collective_inside_a_layer_are_caught():
    def build(mesh):
        return models.mlp((64, 32, 32, 32, 10), mesh)

    plan = Plan(tensor=2, micro_batches=2, schedule="gpipe")
    prepared = prepare(build, plan, 8)
    for program in (prepared.training, prepared.evaluation):
        check(program)

    def other_order(step):  # micro-batch 1 before micro-batch 0
        return [replace(i, micro_batch=1 - i.micro_batch) if hasattr(i, "micro_batch") else i for i in step]

    for program, kind in ((prepared.training, "Forward"), (prepared.evaluation, "Infer")):
        caught(
            edited(program, 1, other_order),
            f"rank 1 is at {kind}(chunk=0, micro_batch=1",
            f"rank 0 of the same group at {kind}(chunk=0, micro_batch=0",
            "in CollectiveCall(name='all_reduce', axes=('tensor',)",
        )

    def one_after_the_other(step):  # by tensor rank 1 alone, which goes back to micro-batch 0 while 0 goes on to 1
        return list(prepare(build, replace(plan, schedule="naive"), 8).training[1].step)

    caught(
        edited(prepared.training, 1, one_after_the_other),
        "rank 1 is at Backward",
        "rank 0 of the same group at Forward",
    )


def test_a_chunk_of_another_stage_is_caught():
    def shift(step):
        return [replace(i, chunk=1) if hasattr(i, "chunk") else i for i in step]

    caught(edited(training(Plan(micro_batches=2)), 0, shift), "rank 0")

    program = training(Plan(pipeline=3))

    def skip_the_middle(step):
        return [replace(i, to=2) if isinstance(i, I.SendActivation) else i for i in step]

    skipped = edited(program, 0, skip_the_middle)
    final = tuple(replace(i, source=0) if isinstance(i, I.RecvActivation) else i for i in program[2].step)
    skipped = skipped.edit({2: RankProgram((), final, ())})
    caught(skipped, "rank 2: Forward(chunk=2, micro_batch=0", "gets micro-batch 0 of replica 0 after 3 blocks")


def test_the_checker_knows_how_many_messages_a_channel_holds():
    assert CHANNEL_MESSAGES == SLOTS

    def wait_for_the_gradient(step):  # before micro-batch 1 is taken, so nobody takes the message that no longer fits
        wait = step.pop(find(step, I.RecvGradient, micro_batch=0))
        step.insert(find(step, I.RecvActivation, micro_batch=1), wait)

    def stuck(micro_batches):
        program = training(Plan(pipeline=3, micro_batches=micro_batches, schedule="gpipe"))
        check(program)
        return edited(program, 1, wait_for_the_gradient)

    caught(stuck(SLOTS + 1), "deadlock", "rank 0 at RecvGradient(chunk=0, micro_batch=0")
    caught(stuck(SLOTS + 30), "deadlock", f"rank 0 at SendActivation(chunk=0, micro_batch={SLOTS + 1}, ")
