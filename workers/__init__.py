"""The worker process, from the outside in.

process           makes the parts, starts and closes them: celery_consumer takes wake-ups, queue_threads work,
                  background polls and pushes, heartbeat and presence say that the worker lives
job_runner        claims jobs; job_kinds puts together what runs them
predict_jobs      job_embedder fetches, pipeline embeds (through a window_queue), predict_jobs scores
project_jobs      locks the project and runs one of
  learning_jobs       refit (head_fitting), finetuner (training_set, training_process), promote, pruning;
                      head_trials and canaries (trial_answers): versions on trial
  label_studio_jobs   sync, prelabel, align, tabs, reread
  search_jobs
rollout           how a version takes over: rollout_plan, rollout_pages, push, shown_version
planner           queues jobs by the clock; training_triggers after enough labels
"""
