"""A fold visitor: 1 for a blob, the sum of the children for a tree."""


def run(job):
    args = job.args()
    if args["in"].kind == "blob":
        return b"1\n"
    return b"%d\n" % sum(int(job.get(child["hash"])) for child in job.tree(args["children"].hash))
